//! Which keys a direction is under: secrets are looked up, and openers made of them.

use offpath_types::Direction;

use super::half::{Half, Phase, Place};
use super::messages::Messages;
use super::{Connection, Early, Env, Stop, Turn, Why, open_in_place};
use crate::tls::keys::{Label, Name, Secret};
use crate::tls::record::{HEADER, Header, Opened, Opener};
use crate::tls::schedule::side_keys;

impl Connection {
    /// Makes the opener of the phase that `dir` is in, if it can be made.
    pub(super) fn prepare(&mut self, env: &mut Env<'_>, dir: Direction) -> Result<(), Stop> {
        let half = &self.halves[dir.index()];
        if half.opener.is_some() {
            return Ok(());
        }
        let phase = half.phase;
        let made = self.opener13(env, dir, phase)?;
        let half = &mut self.halves[dir.index()];
        if let Some((opener, secret)) = made {
            half.opener = Some(Box::new(opener));
            half.secret = (phase == Phase::Traffic).then_some(secret);
        }
        if phase == Phase::Traffic {
            if half.opener.is_none() {
                return Err(Stop::GivenUp(Why::NoSecrets));
            }
            self.drop_secrets();
        }
        Ok(())
    }

    /// Secrets that are in use are not kept twice, nor those of a direction that is lost.
    pub(super) fn drop_secrets(&mut self) {
        let has = |h: &Half| h.place == Place::Lost || h.phase == Phase::Traffic && h.opener.is_some();
        if self.halves.iter().all(has) {
            self.serve();
        }
    }

    /// Drops secrets, and what more would come of: nothing more is needed of a key log.
    pub(super) fn serve(&mut self) {
        self.secrets = None;
        self.served = self.names();
        if let Some(handshake) = &mut self.handshake {
            handshake.exchange.forget();
        }
    }

    /// Makes the opener of a phase of TLS 1.3; `None` where its secret is not known.
    pub(super) fn opener13(
        &mut self,
        env: &mut Env<'_>,
        dir: Direction,
        phase: Phase,
    ) -> Result<Option<(Opener, Secret)>, Stop> {
        let client = self.client == Some(dir);
        let label = match (phase, client) {
            (Phase::Early, true) => Label::ClientEarly,
            (Phase::Handshake, true) => Label::ClientHandshake,
            (Phase::Handshake, false) => Label::ServerHandshake,
            (Phase::Traffic, true) => Label::ClientTraffic,
            (Phase::Traffic, false) => Label::ServerTraffic,
            _ => return Ok(None),
        };
        let Some(suite) = self.handshake.as_ref().and_then(|h| h.suite) else { return Ok(None) };
        let Some(secret) = self.secret(env, label)? else { return Ok(None) };
        Ok(Opener::tls13(suite, &secret).map(|opener| (opener, secret)))
    }

    /// Returns a secret, if it is known by now.
    fn known(&mut self, env: &Env<'_>, label: Label) -> Option<Secret> {
        let handshake = self.handshake.as_ref()?;
        let secrets = self.secrets.get_or_insert_default();
        if secrets.get(label).is_none() {
            secrets.merge(&env.keys.get(&Name::Client(handshake.client_random)));
        }
        if label == Label::Master
            && secrets.get(label).is_none()
            && let Some(master) = handshake.master(env)
        {
            secrets.set(label, master);
        }
        secrets.get(label).cloned()
    }

    /// Returns a secret; `Err` where it is worth waiting for.
    pub(super) fn secret(&mut self, env: &Env<'_>, label: Label) -> Result<Option<Secret>, Stop> {
        let known = self.known(env, label);
        // Early data's is written before the others, so it will not come alone.
        if known.is_none() && env.wait && self.handshake.is_some() && label != Label::ClientEarly {
            self.missing = Some(label);
            return Err(Stop::Keys);
        }
        Ok(known)
    }

    /// Opens a record of a handshake under the key of its phase, or of a later one: what stands between may be lost,
    /// refused by the server, or its secret not known.
    pub(super) fn open_early(&mut self, env: &mut Env<'_>, dir: Direction, header: Header) -> Option<Opened> {
        let d = dir.index();
        let half = &mut self.halves[d];
        let span = half.at..half.at + HEADER + header.len;
        let phase = half.phase;
        env.scratch.clear();
        env.scratch.extend_from_slice(&half.buf[span.clone()]);
        if let Some(opened) = open_in_place(half.opener.as_deref(), half.seq, env.scratch) {
            half.buf[span].copy_from_slice(env.scratch);
            return Some(opened);
        }
        for later in [Phase::Handshake, Phase::Traffic] {
            if later <= phase {
                continue;
            }
            let wait = std::mem::replace(&mut env.wait, false);
            let made = self.opener13(env, dir, later);
            env.wait = wait;
            let Ok(Some((opener, secret))) = made else { continue };
            let half = &mut self.halves[d];
            env.scratch.clear();
            env.scratch.extend_from_slice(&half.buf[span.clone()]);
            if let Some(opened) = open_in_place(Some(&opener), 0, env.scratch) {
                half.buf[span].copy_from_slice(env.scratch);
                half.enter(later);
                half.messages = Messages::default();
                half.opener = Some(Box::new(opener));
                half.secret = (later == Phase::Traffic).then_some(secret);
                self.server_told(dir, later);
                self.drop_secrets();
                return Some(opened);
            }
        }
        None
    }

    /// A server that is past its handshake has said all it will say about 0-RTT data.
    pub(super) fn server_told(&mut self, dir: Direction, phase: Phase) {
        if let Some(handshake) = &mut self.handshake
            && phase == Phase::Traffic
            && self.client == Some(dir.flip())
            && handshake.early == Early::Open
        {
            handshake.early = Early::Refused;
        }
    }

    /// Puts `dir` under the keys that the handshake of TLS 1.2 agreed upon.
    pub(super) fn change_cipher(&mut self, env: &mut Env<'_>, dir: Direction) -> Result<Turn, Stop> {
        let Some(client) = self.client else { return Ok(Turn::Wait) };
        let agreed = self.handshake.as_ref().and_then(|h| h.suite.zip(h.server_random));
        if self.tls13.is_none() || agreed.is_none() {
            return Ok(Turn::Wait);
        }
        if self.exchange_may_come(dir, client) && self.known(env, Label::Master).is_none() {
            return Ok(Turn::Wait);
        }
        let Some(opener) = self.opener12(env, dir, client)? else {
            return Err(Stop::GivenUp(Why::NoSecrets));
        };
        let half = &mut self.halves[dir.index()];
        half.enter(Phase::Traffic);
        half.opener = Some(Box::new(opener));
        half.messages = Messages::default();
        self.drop_secrets();
        // The other one may have waited for what a key exchange did not show.
        Ok(Turn::Unlocked)
    }

    /// Makes the opener of `dir` for the handshake in progress of TLS 1.2.
    pub(super) fn opener12(
        &mut self,
        env: &Env<'_>,
        dir: Direction,
        client: Direction,
    ) -> Result<Option<Opener>, Stop> {
        let Some(master) = self.secret(env, Label::Master)? else { return Ok(None) };
        let Some(h) = &self.handshake else { return Ok(None) };
        let (Some(suite), Some(server_random)) = (h.suite, &h.server_random) else { return Ok(None) };
        let keys = side_keys(suite, &master, &h.client_random, server_random, dir == client);
        Ok(Opener::tls12(suite, &keys, h.encrypt_then_mac))
    }
}
