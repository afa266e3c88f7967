//! Finding the place in the records again, after bytes were lost.

use offpath_types::Direction;

use super::half::{Half, Phase, Place};
use super::messages::Messages;
use super::{
    Connection, Env, Plain, Record, Stop, TRIAL_KEYS_COST, TRIAL_NEXT_KEY_MAX, TRIAL_RECORDS_MAX, Turn,
};
use crate::tls::record::{APPLICATION_DATA, CHANGE_CIPHER_SPEC, HEADER, Header, Opened, Opener};
use crate::tls::schedule::next_secret;

impl Connection {
    /// Looks for the start of a record that can be opened; `None` where more bytes are needed, else whether the record
    /// that was found unlocks the other direction.
    pub(super) fn search<P: Plain>(
        &mut self,
        env: &mut Env<'_>,
        dir: Direction,
        from: u64,
        skip: u64,
        out: &mut P,
    ) -> Result<Option<bool>, Stop> {
        if self.halves[dir.index()].changing && matches!(self.change_cipher(env, dir)?, Turn::Wait) {
            return Ok(None);
        }
        loop {
            let tls13 = self.tls13;
            let half = &mut self.halves[dir.index()];
            let pass = |half: &mut Half, env: &mut Env<'_>, count: usize| {
                half.at += count;
                env.counters.bytes_unopened_total += count as u64;
            };
            if half.offset() < skip {
                let count = (skip - half.offset()).min(half.waiting().len() as u64);
                pass(half, env, count as usize);
                if half.waiting().is_empty() {
                    return Ok(None);
                }
            }
            let Some(tls13) = tls13 else {
                // Nothing can be tried before the server's hello.
                return Ok(None);
            };
            let skipped = candidate(half.waiting(), tls13);
            pass(half, env, skipped);
            let waiting = half.waiting();
            if waiting.len() < HEADER {
                return Ok(None);
            }
            let Some(header) = Header::parse(waiting) else {
                pass(half, env, 1);
                continue;
            };
            if waiting.len() < HEADER + header.len {
                return Ok(None);
            }
            // Keys change in plain sight the first time.
            if !tls13 && half.opener.is_none() && waiting.starts_with(&[CHANGE_CIPHER_SPEC, 3, 3, 0, 1, 1]) {
                half.place = Place::Aligned;
                return Ok(Some(false));
            }
            let lost = half.offset() - from;
            match self.try_numbers(env, dir, header, lost)? {
                None if self.halves[dir.index()].trial_bytes == 0 => {
                    self.lose(env, dir);
                    return Ok(None);
                }
                None => pass(&mut self.halves[dir.index()], env, 1),
                Some((opened, missing)) => {
                    env.counters.resyncs_total += 1;
                    env.counters.records_opened_total += 1;
                    let half = &mut self.halves[dir.index()];
                    half.place = Place::Aligned;
                    half.usual = (HEADER + header.len) as u64;
                    // A lost record may have held the first part of a message.
                    half.messages = Messages { broken: half.phase != Phase::Traffic, ..Messages::default() };
                    if missing > 0 {
                        let seen = half.marks.first().map_or(half.seen, |m| m.seen);
                        out.gap(dir, missing, half.plain, seen);
                        half.plain += missing;
                    }
                    let turn = self.opened(env, Record { dir, header }, &opened, out)?;
                    self.took(env, dir, header);
                    return Ok(Some(matches!(turn, Turn::Unlocked)));
                }
            }
        }
    }

    /// Tries to open the record at the start of what waits, `lost` bytes after the first lost record began: under the
    /// key in use with later numbers, then under the keys that a lost message would have brought.
    ///
    /// Returns what it held and how many bytes of application data are missing before it.
    pub(super) fn try_numbers(
        &mut self,
        env: &mut Env<'_>,
        dir: Direction,
        header: Header,
        lost: u64,
    ) -> Result<Option<(Opened, u64)>, Stop> {
        let tls13 = self.tls13 == Some(true);
        if tls13 && self.halves[dir.index()].phase != Phase::Plain {
            self.prepare(env, dir)?;
        }
        let d = dir.index();
        let most = (lost / (HEADER as u64 + 17) + 1).min(TRIAL_RECORDS_MAX);
        if self.halves[d].opener.is_some() {
            let half = &mut self.halves[d];
            // Part of at least one record was lost.
            let guess = (lost / half.usual.max(1)).clamp(1, most);
            for k in spiral(guess, most) {
                let seq = half.seq + k;
                let opener = half.opener.take();
                let opened = half.try_open(env, opener.as_deref(), seq, header);
                half.opener = opener;
                if let Some(opened) = opened {
                    let each = half.opener.as_ref().map_or(0, |o| o.overhead());
                    half.seq = seq + 1;
                    let missing = lost.saturating_sub(k * each);
                    let app = half.phase == Phase::Traffic;
                    return Ok(Some((opened, if app { missing } else { 0 })));
                }
                if half.trial_bytes == 0 {
                    return Ok(None);
                }
            }
        }
        let phase = self.halves[d].phase;
        let mut next = Vec::new();
        if !tls13 {
            // The keys of a renegotiation, or the first ones.
            if let (Some(client), true) =
                (self.client, self.handshake.as_ref().is_some_and(|h| h.suite.is_some()))
            {
                let fresh = self.halves[d].opener.is_none();
                if fresh && let Some(opener) = self.opener12(env, dir, client)? {
                    next.push((Phase::Traffic, opener, None));
                }
            }
        } else if phase == Phase::Traffic {
            let half = &self.halves[d];
            let suite = self.handshake.as_ref().and_then(|h| h.suite);
            if let (Some(suite), Some(secret)) = (suite, &half.secret) {
                let secret = next_secret(suite.hash, secret);
                next.extend(Opener::tls13(suite, &secret).map(|o| (phase, o, Some(secret))));
            }
        } else {
            for later in [Phase::Handshake, Phase::Traffic] {
                if later > phase || self.halves[d].opener.is_none() && later == phase {
                    let wait = std::mem::replace(&mut env.wait, false);
                    let made = self.opener13(env, dir, later);
                    env.wait = wait;
                    if let Ok(Some((opener, secret))) = made {
                        next.push((later, opener, (later == Phase::Traffic).then_some(secret)));
                    }
                }
            }
        }
        let half = &mut self.halves[d];
        half.trial_bytes = half.trial_bytes.saturating_sub(TRIAL_KEYS_COST * next.len() as u64);
        for (later, opener, secret) in next {
            for seq in 0..most.min(TRIAL_NEXT_KEY_MAX) {
                if let Some(opened) = half.try_open(env, Some(&opener), seq, header) {
                    let same = half.phase == later && half.opener.is_some();
                    half.enter(later);
                    half.opener = Some(Box::new(opener));
                    half.secret = secret;
                    half.seq = seq + 1;
                    let missing =
                        if seq > 0 || same { lost.saturating_sub(seq * (HEADER as u64 + 17)) } else { 0 };
                    self.server_told(dir, later);
                    self.drop_secrets();
                    return Ok(Some((opened, if later == Phase::Traffic { missing } else { 0 })));
                }
                if half.trial_bytes == 0 {
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }
}

/// Returns how many bytes lie before the first that can be the start of a protected record.
fn candidate(bytes: &[u8], tls13: bool) -> usize {
    let mut at = 0;
    while let Some(found) = memchr::memchr(3, &bytes[at..]) {
        let version = at + found;
        if version > 0 {
            let kind = bytes[version - 1];
            let kinds = if tls13 {
                APPLICATION_DATA..=APPLICATION_DATA
            } else {
                CHANGE_CIPHER_SPEC..=APPLICATION_DATA
            };
            if kinds.contains(&kind) && bytes.get(version + 1).is_none_or(|minor| *minor == 3) {
                return version - 1;
            }
        }
        at = version + 1;
    }
    // The last byte may be a type.
    bytes.len().saturating_sub(1)
}

/// Yields 1 to `most`, those near `guess` first.
fn spiral(guess: u64, most: u64) -> impl Iterator<Item = u64> {
    let far = guess.max(most);
    std::iter::once(guess)
        .chain(
            (1..=far).flat_map(move |n| [guess.checked_add(n), guess.checked_sub(n)].into_iter().flatten()),
        )
        .filter(move |k| (1..=most).contains(k))
}
