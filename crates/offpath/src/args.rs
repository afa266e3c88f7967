//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Out-of-band analyzer of HTTP and API traffic.
///
/// Reads a copy of the traffic (mirror port, tap, capture file), rebuilds HTTP transactions, rates every one for
/// automated abuse, and raises signed block webhooks to the WAF or CDN that is already there.
#[derive(Debug, Parser)]
#[command(name = "offpath", version, about, propagate_version = true, max_term_width = 110)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Replay capture files through the whole pipeline, on packet time.
    #[command(after_help = EXIT_CODES)]
    Replay(ReplayArgs),
    /// Attach to mirror ports and detect live.
    #[command(after_help = EXIT_CODES)]
    Attach(AttachArgs),
    /// Receive block webhooks beside a WAF: check, apply, list, expire and undo blocks.
    #[command(after_help = EXIT_CODES)]
    Receive(ReceiveArgs),
    /// Check a configuration file; errors carry line, key, value and the nearest known name.
    #[command(after_help = EXIT_CODES)]
    Check(CheckArgs),
    /// Print a completion script for a shell.
    Completions(CompletionsArgs),
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 our failure, 2 wrong usage or configuration, \
3 input unreadable or damaged (what could be read was still processed and counted), 130 ended by a second signal.";

/// Format of transaction records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Elastic Common Schema, nested.
    #[default]
    Ecs,
    /// The shape of Suricata's EVE `http` events.
    Eve,
}

/// Where records go, shared by `replay` and `attach`.
#[derive(Debug, Default, Args)]
pub(crate) struct OutputArgs {
    /// Write one JSON line per transaction to PATH (`-` is standard output).
    #[arg(long, value_name = "PATH")]
    pub(crate) transactions: Option<PathBuf>,
    /// Write one JSON line per decision to PATH (`-` is standard output).
    #[arg(long, value_name = "PATH")]
    pub(crate) decisions: Option<PathBuf>,
    /// Write one JSON line per TLS or QUIC handshake and per ended WebSocket connection to PATH (`-` is standard output).
    #[arg(long, value_name = "PATH")]
    pub(crate) connections: Option<PathBuf>,
    /// Write the ledger (every counter, and whether the books balance) as JSON to PATH (`-` is standard output).
    #[arg(long, value_name = "PATH")]
    pub(crate) stats: Option<PathBuf>,
    /// Write the inventory of what was asked for (endpoints, parameters, credentials) to PATH as OpenAPI 3.1: YAML if
    /// PATH ends in .yaml or .yml, else JSON.
    #[arg(long, value_name = "PATH")]
    pub(crate) inventory: Option<PathBuf>,
    /// Format of transaction records.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Configuration file (TOML); every key has a default.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// No progress bar, no report, no notices.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// Arguments of `replay`.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// Capture files, directories or globs (pcap, pcapng; gzip and zstd are seen by content); `-` is standard input;
    /// `tcp://HOST:PORT` is a pcap-over-IP server.
    #[arg(required = true, value_name = "FILES")]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Workers that reassemble and parse; 1 does everything in one thread. The output is the same with any number.
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) workers: Option<u8>,
    /// TLS key log (the format of SSLKEYLOGFILE): TLS 1.2 and 1.3 connections of which it has secrets are decrypted.
    /// Repeat for several. With --follow it is read on as it grows, and `unix:///run/keys.sock` is a socket made for
    /// programs to stream their lines to.
    #[arg(long, value_name = "FILE")]
    pub(crate) keylog: Vec<PathBuf>,
    /// Go on as the files grow and new ones come, until SIGINT or SIGTERM; a server `tcp://HOST:PORT` is connected to
    /// again.
    #[arg(long)]
    pub(crate) follow: bool,
    /// Send decisions to the configured webhooks (a replay sends nothing otherwise).
    #[arg(long)]
    pub(crate) deliver: bool,
}

/// Arguments of `attach`.
#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// Interface to listen on; repeat for several.
    #[arg(long, short, value_name = "NAME")]
    pub(crate) interface: Vec<String>,
    /// Listen for a mirror's datagrams: `vxlan://0.0.0.0:4789`, `geneve://0.0.0.0:6081`; repeat for several. Needs no
    /// capture privilege.
    #[arg(long, value_name = "URL")]
    pub(crate) listen: Vec<String>,
    /// Read from a pcap-over-IP server: `tcp://HOST:PORT`; repeat for several.
    #[arg(long, value_name = "URL")]
    pub(crate) pcap_over_ip: Vec<String>,
    /// TLS key log (the format of SSLKEYLOGFILE), read on as it grows, or `unix:///run/offpath/keys.sock`: a socket
    /// made for programs to stream their lines to. TLS 1.2 and 1.3 connections whose secrets come in time are
    /// decrypted. Repeat for several.
    #[arg(long, value_name = "FILE")]
    pub(crate) keylog: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Workers per interface or listener; they share its traffic, both directions of a flow together.
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) workers: Option<u8>,
    /// BPF filter, as tcpdump takes it.
    #[arg(long, short = 'f', value_name = "EXPRESSION")]
    pub(crate) filter: Option<String>,
    /// Bytes captured of each frame.
    #[arg(long, value_name = "BYTES")]
    pub(crate) snaplen: Option<u32>,
    /// Kernel ring per worker, in MiB.
    #[arg(long, value_name = "MIB")]
    pub(crate) ring_mib: Option<u32>,
    /// Do not put the interface into promiscuous mode.
    #[arg(long)]
    pub(crate) no_promiscuous: bool,
    /// User to become once the sockets are open.
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Stop after so many seconds (for tests and measurements).
    #[arg(long, value_name = "SECS")]
    pub(crate) duration: Option<u64>,
}

/// Arguments of `receive`.
#[derive(Debug, Args)]
pub(crate) struct ReceiveArgs {
    /// Where blocks are applied; repeat for several: `haproxy:/run/haproxy.sock?map=/etc/haproxy/offpath.map`,
    /// `nginx:/etc/nginx/offpath-deny.conf?reload=nginx -s reload`, `command:/path/to/program`, `log:/path` or `log:-`.
    #[arg(long, value_name = "PROVIDER")]
    pub(crate) to: Vec<String>,
    /// Address to listen on.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<String>,
    /// File with the webhook secrets, one `whsec_…` a line.
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// File that keeps what is in force over restarts.
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// Configuration file (TOML).
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Ask the receiver at `--listen` what is in force, and stop.
    #[arg(long, conflicts_with = "undo")]
    pub(crate) list: bool,
    /// Ask the receiver at `--listen` to undo the block with this id, and stop.
    #[arg(long, value_name = "ID")]
    pub(crate) undo: Option<String>,
    /// No notices.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The configuration file.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Print the whole configuration in force, defaults included (secrets are left out).
    #[arg(long)]
    pub(crate) print: bool,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    pub(crate) shell: clap_complete::Shell,
}
