//! Synthetic traffic of a shop, with the truth about every transaction.
//!
//! People browse (a page, its assets, calls of its script; several keep-alive connections), offices do so
//! behind one address, apps and partners call the API, and attackers try logins. Every request carries
//! its number in its target (`tx=17`), and the truth file says who made it, what the answer was and which
//! frames carry the two heads. The same options write the same bytes.

mod actors;
mod site;
mod wire;

use std::io::{self, Write};

use offpath_types::Timestamp;

use crate::measure::Truth;
use crate::packet_builder::Link;
use crate::pcap_file::{PcapFormat, PcapWriter};
use crate::rng::Rng;
use actors::World;

/// Which attacks are in the traffic, beside people, offices, apps and partners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scenario {
    /// None.
    #[default]
    People,
    /// Stuffing of leaked credentials from three addresses, several a second.
    AtoFast,
    /// The same from many addresses, each a try every few minutes.
    AtoSlow,
    /// One password over many users.
    Spray,
    /// Many passwords for one user.
    Brute,
    /// All of them.
    Mixed,
    /// The fast and the slow one together: the shipped demo.
    Demo,
}

impl Scenario {
    fn attacks(self) -> &'static [&'static str] {
        match self {
            Self::People => &[],
            Self::AtoFast => &["ato-fast"],
            Self::AtoSlow => &["ato-slow"],
            Self::Spray => &["spray"],
            Self::Brute => &["brute"],
            Self::Mixed => &["ato-fast", "ato-slow", "spray", "brute"],
            Self::Demo => &["ato-fast", "ato-slow"],
        }
    }
}

/// What to generate.
#[derive(Clone, Debug)]
pub struct TrafficOptions {
    /// How many transactions, attacks included.
    pub transactions: u64,
    /// About how large the capture is to be; `None` leaves it to the traffic.
    pub bytes: Option<u64>,
    /// Seed of everything.
    pub seed: u64,
    /// The attacks.
    pub scenario: Scenario,
    /// Over how many seconds.
    pub duration_secs: u64,
    /// When it starts.
    pub start: Timestamp,
    /// Transactions of each kind of attack; by default a fiftieth of all, between 150 and 3000.
    pub attack_transactions: Option<u64>,
    /// Whether segments without data or flags beyond ACK are captured; a capture filter may drop them.
    pub empty_acks: bool,
}

impl Default for TrafficOptions {
    fn default() -> Self {
        Self {
            transactions: 10_000,
            bytes: None,
            seed: 1,
            scenario: Scenario::People,
            duration_secs: 600,
            start: Timestamp::from_parts(1_767_600_000, 0),
            attack_transactions: None,
            empty_acks: true,
        }
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Transactions.
    pub transactions: u64,
    /// Frames.
    pub frames: u64,
    /// TCP connections.
    pub connections: u64,
    /// Bytes of the capture file.
    pub bytes: u64,
}

/// Generated traffic, held until it is written.
pub struct Traffic {
    world: World,
    start: Timestamp,
}

impl Traffic {
    /// Generates.
    ///
    /// Holds all heads and 48 bytes a segment: about 1.5 KB a transaction.
    pub fn generate(options: &TrafficOptions) -> Self {
        let cold = options.bytes.map_or((0.35, 1.0), |bytes| fit_assets(options, bytes));
        Self { world: populate(options, options.transactions, cold), start: options.start }
    }

    /// Writes a microsecond pcap of Ethernet frames, and the truth as JSON lines.
    pub fn write<W: Write, T: Write>(&mut self, pcap: W, mut truth: T) -> io::Result<Summary> {
        let format = PcapFormat { nanos: false, ..PcapFormat::new(Link::Ethernet.number()) };
        let mut writer = PcapWriter::new(pcap, format)?;
        let (wire, rows) = (&mut self.world.wire, &mut self.world.rows);
        wire.sort();
        let mut frame = Vec::with_capacity(2048);
        for (index, segment) in wire.segments.iter().enumerate() {
            wire.frame(segment, &mut frame);
            writer.write(self.start.plus_nanos(segment.time), &frame)?;
            if let Some(row) = rows.get_mut(segment.tx as usize) {
                match segment.mark {
                    wire::Mark::RequestHead => row.request_head_frames.push(index as u64),
                    wire::Mark::ResponseHead => row.response_head_frames.push(index as u64),
                    wire::Mark::None => {}
                }
            }
        }
        for row in rows.iter() {
            serde_json::to_writer(&mut truth, row)?;
            truth.write_all(b"\n")?;
        }
        truth.flush()?;
        let summary = Summary {
            transactions: rows.len() as u64,
            frames: writer.packets(),
            connections: wire.connections.len() as u64,
            bytes: writer.bytes(),
        };
        writer.finish()?;
        Ok(summary)
    }

    /// Returns the truth; the frame numbers are filled in by [`Traffic::write`].
    pub fn truth(&self) -> &[Truth] {
        &self.world.rows
    }
}

/// Finds how many assets must be fetched (rather than revalidated), and how large, for `bytes` in all.
///
/// Heads and pages are what they are; assets are the part that a browser's cache may save. The size is
/// linear in the share of fetched assets, so two samples of a twentieth of the traffic give it.
fn fit_assets(options: &TrafficOptions, bytes: u64) -> (f64, f64) {
    let sample = (options.transactions / 20).max(6000).min(options.transactions);
    let size = |share| populate(options, sample, (share, 1.0)).wire.file_bytes() as f64;
    let (none, most) = (size(0.0), size(0.9));
    let wanted = bytes as f64 * sample as f64 / options.transactions.max(1) as f64;
    let factor = ((wanted - none) / (most - none).max(1.0)).max(0.0);
    if factor <= 1.0 { (0.9 * factor, 1.0) } else { (0.9, factor) }
}

fn populate(options: &TrafficOptions, transactions: u64, assets: (f64, f64)) -> World {
    let attacks = options.scenario.attacks();
    let each = options.attack_transactions.unwrap_or((options.transactions / 50).clamp(150, 3000));
    let each = each.min(transactions / (attacks.len() as u64 + 1).max(2));
    let benign = transactions - each * attacks.len() as u64;
    let mut world = World::new(options, assets);
    let office = benign * 15 / 100;
    let app = benign * 18 / 100;
    let partner = benign * 12 / 100;
    let seeds = Rng::new(options.seed);
    world.run(seeds.fork(1), "person", benign - office - app - partner);
    world.run(seeds.fork(2), "office", office);
    world.run(seeds.fork(3), "app", app);
    world.run(seeds.fork(4), "partner", partner);
    for (i, label) in attacks.iter().enumerate() {
        world.run(seeds.fork(10 + i as u64), label, each);
    }
    if !options.empty_acks {
        world.wire.drop_empty_acks();
    }
    world
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::impair::Kept;
    use crate::measure::tx_of_target;
    use crate::pcap_file::PcapReader;

    fn written(options: &TrafficOptions) -> (Vec<u8>, Vec<Truth>, Summary) {
        let mut traffic = Traffic::generate(options);
        let (mut pcap, mut truth) = (Vec::new(), Vec::new());
        let summary = traffic.write(&mut pcap, &mut truth).unwrap();
        (pcap, crate::measure::read_truth(&truth[..]).unwrap(), summary)
    }

    #[test]
    fn the_same_seed_writes_the_same_bytes_and_every_head_is_in_its_frames() {
        let options =
            TrafficOptions { transactions: 2000, scenario: Scenario::Mixed, ..TrafficOptions::default() };
        let (pcap, truth, summary) = written(&options);
        assert_eq!(pcap.len() as u64, summary.bytes);
        assert_eq!(Traffic::generate(&options).world.wire.file_bytes(), summary.bytes);
        assert_eq!((truth.len(), summary.transactions), (2000, 2000));
        assert!(written(&options).0 == pcap);
        assert!(written(&TrafficOptions { seed: 2, ..options }).0 != pcap);

        let mut frames = Vec::new();
        let mut reader = PcapReader::new(&pcap[..]).unwrap();
        while let Some(record) = reader.next_record().unwrap() {
            frames.push(record);
        }
        assert!(frames.is_sorted_by_key(|f| f.time));
        let payload = |i: u64| {
            let f = &frames[i as usize].bytes;
            let ip = if f[14] >> 4 == 4 { 34 } else { 54 };
            &f[ip + 32..]
        };
        for row in &truth {
            let request = payload(row.request_head_frames[0]);
            let line = format!("{} {} HTTP/1.1\r\n", row.method, row.target);
            assert!(request.starts_with(line.as_bytes()), "{line}");
            assert_eq!(tx_of_target(&row.target), Some(row.tx));
            let status = format!("HTTP/1.1 {} ", row.status);
            assert!(payload(row.response_head_frames[0]).starts_with(status.as_bytes()), "{status}");
            assert!(row.heads_survived(&Kept::default()));
        }
    }

    #[test]
    fn labels_have_their_shares_and_logins_their_outcomes() {
        let options = TrafficOptions {
            transactions: 4000,
            scenario: Scenario::Mixed,
            attack_transactions: Some(200),
            ..TrafficOptions::default()
        };
        let truth = Traffic::generate(&options).world.rows;
        let count = |label: &str| truth.iter().filter(|t| t.label == label).count();
        for label in ["ato-fast", "ato-slow", "spray", "brute"] {
            assert_eq!(count(label), 200, "{label}");
        }
        assert_eq!(count("office"), 480);
        let failed = |label: &str| {
            truth.iter().filter(|t| t.label == label && t.login.as_deref() == Some("failure")).count()
        };
        assert!(failed("person") > 0 && failed("ato-fast") > 150 && failed("spray") > 150);
    }

    #[test]
    fn the_size_comes_out_as_asked() {
        for bytes in [12_000_000u64, 20_000_000, 100_000_000] {
            let options =
                TrafficOptions { transactions: 6000, bytes: Some(bytes), ..TrafficOptions::default() };
            let got = Traffic::generate(&options).world.wire.file_bytes();
            assert!(got.abs_diff(bytes) < bytes / 10, "{bytes} {got}");
        }
    }
}
