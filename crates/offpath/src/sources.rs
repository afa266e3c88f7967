//! Opens what the user names: interfaces, listeners, streams and files.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use offpath_capture::{
    CaptureCounters, FileOptions, FileSource, LiveOptions, LiveSource, PacketSource, Polled, Secrets,
    SourceError, StreamOptions, StreamSource, UdpOptions, UdpSource,
};
use offpath_types::LinkType;

use crate::args::{AttachArgs, ReplayArgs};
use crate::config::Config;
use crate::exit::{Failure, outlive_interrupt, stop_on_signal};

/// Buffer of a stream, as that of a file.
const STREAM_BUFFER_BYTES: usize = 512 * 1024;
/// How long it may take until a new file is seen beside one that is followed.
const RESCAN_MS: u16 = 1000;

/// A source that a live worker reads from.
pub(crate) type Live = Box<dyn PacketSource + Send>;

/// Sources of `attach`, one a worker.
#[derive(Default)]
pub(crate) struct LiveSources {
    /// Workers that share what one place receives: an interface, a listener, a stream.
    pub(crate) groups: Vec<Vec<Live>>,
    /// How the places are called.
    pub(crate) names: Vec<String>,
    /// A packet socket was opened.
    pub(crate) interfaces: bool,
    /// Sources at the end that are pcap-over-IP: the only ones that may hold secrets.
    pub(crate) streams: usize,
}

/// Opens everything that `attach` reads from.
pub(crate) fn open_live(
    args: &AttachArgs,
    config: &Config,
    stop: &Arc<AtomicBool>,
) -> Result<LiveSources, Failure> {
    let pick = |given: &Vec<String>, set: &Vec<String>| -> Vec<String> {
        // What the command line names is all there is.
        let named = !(args.interface.is_empty() && args.listen.is_empty() && args.pcap_over_ip.is_empty());
        if named { given.clone() } else { set.clone() }
    };
    let interfaces = pick(&args.interface, &config.capture.interfaces);
    let listeners = pick(&args.listen, &config.capture.listen);
    let streams = pick(&args.pcap_over_ip, &config.capture.pcap_over_ip);
    let mut open = LiveSources {
        names: [&interfaces[..], &listeners[..], &streams[..]].concat(),
        interfaces: !interfaces.is_empty(),
        streams: streams.len(),
        ..LiveSources::default()
    };
    if open.names.is_empty() {
        return Err(Failure::usage(anyhow::anyhow!(
            "nothing to attach to: give an interface with -i, a listener with --listen or a stream with --pcap-over-ip, \
             or set capture.interfaces, capture.listen or capture.pcap_over_ip in the configuration"
        )));
    }
    if let Some(twice) = open.names.iter().enumerate().find(|(i, name)| open.names[..*i].contains(name)) {
        return Err(Failure::usage(anyhow::anyhow!("{} is named twice", twice.1)));
    }
    let workers = config.workers(args.workers);
    for (number, interface) in interfaces.iter().enumerate() {
        let mut group: Vec<Live> = Vec::new();
        for worker in 0..workers {
            let options = live_options(args, config, interface, number, worker, workers);
            group.push(Box::new(LiveSource::open(&options).map_err(|e| failure(interface, e))?));
        }
        open.groups.push(group);
    }
    for name in &listeners {
        let options = udp_options(name, config, workers).map_err(Failure::usage)?;
        let mut group: Vec<Live> = Vec::new();
        for worker in 0..workers {
            let source = UdpSource::open(&options).map_err(|e| failure(name, e))?;
            let (got, wanted) = (source.buffer_bytes(), options.receive_buffer_bytes as usize);
            if worker == 0 && got < wanted {
                tracing::warn!(
                    "{name}: the kernel grants a receive buffer of {got} bytes, not {wanted}: raise net.core.rmem_max, \
                     or give the binary CAP_NET_ADMIN"
                );
            }
            group.push(Box::new(source));
        }
        open.groups.push(group);
    }
    for name in &streams {
        let address = tcp_address(name).ok_or_else(|| {
            Failure::usage(anyhow::anyhow!("{name}: a pcap-over-IP server is written tcp://HOST:PORT"))
        })?;
        let options = stream_options(config, true, stop);
        open.groups
            .push(vec![Box::new(StreamSource::connect(address, options).map_err(|e| failure(name, e))?)]);
    }
    Ok(open)
}

fn live_options(
    args: &AttachArgs,
    config: &Config,
    interface: &str,
    number: usize,
    worker: usize,
    workers: usize,
) -> LiveOptions {
    LiveOptions {
        interface: interface.to_owned(),
        worker: worker as u16,
        workers: workers as u16,
        // Different for each interface and process; the kernel keeps groups by this number per network namespace.
        fanout_group: (std::process::id() as u16).wrapping_mul(31).wrapping_add(number as u16),
        filter: args.filter.clone().or_else(|| config.capture.filter.clone()).unwrap_or_default(),
        snaplen: args.snaplen.unwrap_or(config.capture.snaplen_bytes),
        ring_bytes: args.ring_mib.unwrap_or(config.capture.ring_mib).saturating_mul(1 << 20),
        promiscuous: config.capture.promiscuous && !args.no_promiscuous,
        poll_ms: config.capture.poll_ms as u16,
    }
}

/// Reads `vxlan://ADDRESS:PORT` or `geneve://ADDRESS:PORT`; the error says what is wanted.
pub(crate) fn listener(name: &str) -> Result<(LinkType, &str), &'static str> {
    let (link, address) = match name.split_once("://") {
        Some(("vxlan", address)) => (LinkType::Vxlan, address),
        Some(("geneve", address)) => (LinkType::Geneve, address),
        _ => return Err("a listener is written vxlan://ADDRESS:PORT or geneve://ADDRESS:PORT"),
    };
    let sound = address.parse::<SocketAddr>().is_ok() || is_host_and_port(address);
    if sound {
        Ok((link, address))
    } else {
        Err("no ADDRESS:PORT (0.0.0.0:4789 and [::]:4789 are all addresses)")
    }
}

/// Reads `tcp://HOST:PORT`.
pub(crate) fn tcp_address(name: &str) -> Option<&str> {
    name.strip_prefix("tcp://").filter(|address| is_host_and_port(address))
}

fn is_host_and_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

fn udp_options(name: &str, config: &Config, workers: usize) -> anyhow::Result<UdpOptions> {
    let (link, address) = listener(name).map_err(|want| anyhow::anyhow!("{name}: {want}"))?;
    let listen: Option<SocketAddr> = address.to_socket_addrs().ok().and_then(|mut list| list.next());
    let Some(listen) = listen else { anyhow::bail!("{name}: {address} has no address") };
    Ok(UdpOptions {
        listen,
        link,
        shared: workers > 1,
        receive_buffer_bytes: config.capture.receive_buffer_mib.saturating_mul(1 << 20),
        poll_ms: config.capture.poll_ms as u16,
    })
}

fn stream_options(config: &Config, reconnect: bool, stop: &Arc<AtomicBool>) -> StreamOptions {
    StreamOptions {
        poll_ms: config.capture.poll_ms as u16,
        rescan_ms: RESCAN_MS,
        buffer_bytes: STREAM_BUFFER_BYTES,
        reconnect,
        stop: Arc::clone(stop),
    }
}

fn failure(name: &str, error: SourceError) -> Failure {
    let kind = if matches!(error, SourceError::Filter { .. }) { Failure::usage } else { Failure::input };
    kind(anyhow::Error::new(error).context(format!("cannot capture on {name}")))
}

/// What a replay reads from.
pub(crate) enum Input {
    /// Files that are there.
    Files(FileSource),
    /// Files that are still written, or a pcap-over-IP server.
    Stream(StreamSource),
}

impl Input {
    /// Opens what the arguments name.
    pub(crate) fn open(args: &ReplayArgs, config: &Config) -> Result<Self, Failure> {
        let server = args.files.iter().find_map(|path| path.to_str().and_then(tcp_address));
        let several = args.files.len() > 1;
        let standard_input = args.files.iter().any(|path| path.as_os_str() == "-");
        let opened = match server {
            Some(_) if several => {
                return Err(Failure::usage(anyhow::anyhow!("a pcap-over-IP server is replayed by itself")));
            }
            Some(address) => {
                StreamSource::connect(address, stream_options(config, args.follow, &stop_on_signal()?))
                    .map(Self::Stream)
            }
            None if args.follow => {
                if standard_input {
                    return Err(Failure::usage(anyhow::anyhow!(
                        "standard input is read to its end anyway: leave --follow out"
                    )));
                }
                let options = stream_options(config, false, &stop_on_signal()?);
                StreamSource::follow(&args.files, options).map(Self::Stream)
            }
            None => {
                if standard_input {
                    outlive_interrupt()?;
                }
                FileSource::open(&args.files, FileOptions::default()).map(Self::Files)
            }
        };
        opened.map_err(|e| Failure::input(e.into()))
    }

    /// Returns how many bytes were read, and of how many.
    pub(crate) fn progress(&self) -> (u64, Option<u64>) {
        match self {
            Self::Files(source) => source.progress(),
            Self::Stream(source) => (source.counters().bytes_total, None),
        }
    }

    /// Returns the damage found, a line each.
    pub(crate) fn problems(&self) -> Vec<String> {
        let problems = match self {
            Self::Files(source) => source.problems(),
            Self::Stream(source) => source.problems(),
        };
        problems.iter().map(ToString::to_string).collect()
    }
}

impl PacketSource for Input {
    #[inline]
    fn next_frame(&mut self) -> Result<Polled<'_>, SourceError> {
        match self {
            Self::Files(source) => source.next_frame(),
            Self::Stream(source) => source.next_frame(),
        }
    }

    fn counters(&self) -> CaptureCounters {
        match self {
            Self::Files(source) => source.counters(),
            Self::Stream(source) => source.counters(),
        }
    }

    #[inline]
    fn fresh_secrets(&mut self) -> Result<&[Secrets], SourceError> {
        match self {
            Self::Files(source) => source.fresh_secrets(),
            Self::Stream(source) => source.fresh_secrets(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_read_and_mistakes_say_what_is_wanted() {
        let config = Config::default();
        let read =
            |name: &str| udp_options(name, &config, 2).map(|o| (o.listen.to_string(), o.link, o.shared));
        for (name, want) in [
            ("vxlan://0.0.0.0:4789", ("0.0.0.0:4789", LinkType::Vxlan)),
            ("geneve://[::1]:6081", ("[::1]:6081", LinkType::Geneve)),
        ] {
            assert_eq!(read(name).unwrap(), (want.0.to_owned(), want.1, true), "{name}");
        }
        for (name, want) in [
            ("gre://0.0.0.0:1", "vxlan://ADDRESS:PORT"),
            ("0.0.0.0:4789", "vxlan://ADDRESS:PORT"),
            ("vxlan://0.0.0.0", "no ADDRESS:PORT"),
            ("vxlan://0.0.0.0:70000", "no ADDRESS:PORT"),
            ("vxlan://nowhere.invalid:4789", "nowhere.invalid:4789 has no address"),
        ] {
            let e = read(name).unwrap_err().to_string();
            assert!(e.contains(want), "{name}: {e}");
        }
        assert_eq!(tcp_address("tcp://127.0.0.1:57012"), Some("127.0.0.1:57012"));
        assert_eq!(tcp_address("tcp://sensor.example:1"), Some("sensor.example:1"));
        for name in ["tcp://localhost", "a.pcap", "tcp://:5", "tcp://a:", "tcp://a:99999"] {
            assert_eq!(tcp_address(name), None, "{name}");
        }
    }
}
