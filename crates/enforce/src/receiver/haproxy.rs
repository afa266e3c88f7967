//! Keeps a map or ACL of a running HAProxy equal to the state, through its runtime socket.
//!
//! Source: HAProxy Management Guide 2.6, §9.3 (`add map`, `set map`, `del map`, `show map`, and the same for ACLs).
//! Use it in HAProxy as:
//! ```text
//! stats socket /run/haproxy.sock mode 660 level admin
//! http-request deny if { src,map_ip(/etc/haproxy/offpath.map) -m str block }
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use offpath_types::Action;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// How long one exchange may take.
const TALK_MAX: Duration = Duration::from_secs(3);
/// Bytes of commands in one exchange: HAProxy reads one line of at most its buffer size, 16 KiB by default.
const LINE_MAX: usize = 8 << 10;
/// Bytes of one answer: 200 000 entries of 70 bytes fit twice.
const ANSWER_MAX: u64 = 32 << 20;

// Invariant: `present` is what the list held after the last exchange that succeeded, `None` before the first
// and after a failure.
pub(super) struct Haproxy {
    socket: PathBuf,
    list: String,
    map: bool,
    present: Option<BTreeMap<IpNet, Action>>,
}

impl Haproxy {
    pub(super) fn new(socket: PathBuf, list: String, map: bool) -> Self {
        Self { socket, list, map, present: None }
    }

    /// An ACL has no values, so it cannot tell a challenge from a block.
    pub(super) fn supports(map: bool, action: Action) -> bool {
        action == Action::Block || (map && action == Action::Challenge)
    }

    /// Brings the list from what it is known to hold to `desired`; falls back on a full comparison.
    pub(super) async fn apply(&mut self, desired: &BTreeMap<IpNet, Action>) -> Result<u64, String> {
        let Some(present) = self.present.take() else { return self.reconcile(desired).await };
        let commands = self.difference(&present, desired);
        if commands.is_empty() {
            self.present = Some(present);
            return Ok(0);
        }
        match self.execute(&commands).await {
            Ok(()) => {
                self.present = Some(self.wanted(desired));
                Ok(0)
            }
            // Somebody else changed the list, or HAProxy restarted: look what it really holds.
            Err(_) => self.reconcile(desired).await,
        }
    }

    /// Compares the list with `desired` and puts right what differs; returns how much did.
    pub(super) async fn reconcile(&mut self, desired: &BTreeMap<IpNet, Action>) -> Result<u64, String> {
        self.present = None;
        let wanted = self.wanted(desired);
        let shown = self.talk(&format!("show {} {}\n", self.kind(), self.list)).await?;
        let mut commands = Vec::new();
        let mut present = BTreeMap::new();
        for line in shown.lines().filter(|l| !l.trim().is_empty()) {
            let mut words = line.split_ascii_whitespace();
            let reference = words.next().unwrap_or_default();
            if !is_reference(reference) {
                return Err(format!("HAProxy says: {}", shorten(line)));
            }
            let net = words.next().and_then(parse_key);
            let action = match words.next() {
                None | Some("block") => Action::Block,
                Some("challenge") => Action::Challenge,
                Some(_) => Action::Allow,
            };
            match net {
                // Unknown keys, unknown values, and second copies go by reference, so their text is never echoed.
                Some(net) if wanted.get(&net) == Some(&action) && !present.contains_key(&net) => {
                    present.insert(net, action);
                }
                _ => commands.push(format!("del {} {} #{reference}", self.kind(), self.list)),
            }
        }
        commands.extend(self.difference(&present, desired));
        self.execute(&commands).await?;
        self.present = Some(wanted);
        Ok(commands.len() as u64)
    }

    fn wanted(&self, desired: &BTreeMap<IpNet, Action>) -> BTreeMap<IpNet, Action> {
        desired.iter().filter(|(_, a)| Self::supports(self.map, **a)).map(|(n, a)| (*n, *a)).collect()
    }

    fn difference(
        &self,
        present: &BTreeMap<IpNet, Action>,
        desired: &BTreeMap<IpNet, Action>,
    ) -> Vec<String> {
        let (kind, list) = (self.kind(), &self.list);
        let mut commands = Vec::new();
        for net in present.keys().filter(|n| !desired.get(n).is_some_and(|a| Self::supports(self.map, *a))) {
            commands.push(format!("del {kind} {list} {}", key(net)));
        }
        for (net, action) in desired.iter().filter(|(_, a)| Self::supports(self.map, **a)) {
            match present.get(net) {
                Some(now) if now == action => {}
                Some(_) => commands.push(format!("set {kind} {list} {} {}", key(net), action.name())),
                None if self.map => {
                    commands.push(format!("add {kind} {list} {} {}", key(net), action.name()))
                }
                None => commands.push(format!("add {kind} {list} {}", key(net))),
            }
        }
        commands
    }

    /// Sends commands, many to a line; every answer must be empty.
    async fn execute(&self, commands: &[String]) -> Result<(), String> {
        let mut rest = commands;
        while !rest.is_empty() {
            let mut line = String::with_capacity(LINE_MAX);
            let mut taken = 0;
            for command in rest {
                if taken > 0 && line.len() + command.len() + 2 > LINE_MAX {
                    break;
                }
                if taken > 0 {
                    line.push(';');
                }
                line.push_str(command);
                taken += 1;
            }
            line.push('\n');
            let answer = self.talk(&line).await?;
            if let Some(complaint) = answer.lines().find(|l| !l.trim().is_empty()) {
                return Err(format!("HAProxy says: {}", shorten(complaint)));
            }
            rest = rest.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    async fn talk(&self, line: &str) -> Result<String, String> {
        let exchange = async {
            let mut stream = UnixStream::connect(&self.socket).await?;
            stream.write_all(line.as_bytes()).await?;
            let mut answer = String::new();
            stream.take(ANSWER_MAX).read_to_string(&mut answer).await?;
            Ok::<String, std::io::Error>(answer)
        };
        match tokio::time::timeout(TALK_MAX, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(e)) => Err(format!("{}: {e}", self.socket.display())),
            Err(_) => Err(format!("{}: no answer in time", self.socket.display())),
        }
    }

    fn kind(&self) -> &'static str {
        if self.map { "map" } else { "acl" }
    }
}

/// Prints a key: a single address without its length, as people write it.
fn key(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

fn parse_key(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn is_reference(text: &str) -> bool {
    text.strip_prefix("0x").is_some_and(|hex| !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}
