//! Offpath: out-of-band analyzer of HTTP and API traffic.
//!
//! This crate owns what touches the outside world as a whole: arguments, configuration, threads and queues, output
//! records, the report and exit codes. What the product does lives in the crates below it; see `docs/ARCHITECTURE.md`.
#![forbid(unsafe_code)]

mod args;
mod attach;
mod ciphers;
mod config;
mod connections;
mod delivery;
mod exchange;
mod exit;
mod identity;
mod inventory;
mod join;
mod judge;
mod keys;
mod ledger;
mod merge;
mod output;
mod progress;
mod receive;
mod records;
mod replay;
mod report;
mod segments;
mod sources;
mod timefmt;
mod worker;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser};

use crate::args::{AttachArgs, CheckArgs, Cli, Command, OutputArgs, ReplayArgs};
use crate::config::Config;
use crate::exit::Failure;
use crate::judge::Judge;
use crate::ledger::Ledger;
use crate::output::StatsFile;

/// Runs the command line of this process and returns its exit code.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    start_log(&cli.command);
    let done = match &cli.command {
        Command::Replay(args) => replay(args),
        Command::Attach(args) => attach(args),
        Command::Receive(args) => receive::run(args),
        Command::Check(args) => check(args),
        Command::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "offpath", &mut script);
            print(&script)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if replay::is_broken_pipe(&failure.error) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("offpath: {failure}");
            failure.code()
        }
    }
}

/// Logs go to standard error: warnings, or what `OFFPATH_LOG` says (`info`, `offpath=debug` …).
fn start_log(command: &Command) {
    let quiet = match command {
        Command::Replay(a) => a.output.quiet,
        Command::Attach(a) => a.output.quiet,
        Command::Receive(a) => a.quiet,
        Command::Check(_) | Command::Completions(_) => false,
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("OFFPATH_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(if quiet { "error" } else { "warn" }));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
}

/// Body of the fuzz target `config`: any text is a configuration or a mistake with a message.
#[doc(hidden)]
pub fn fuzz_config(data: &[u8]) {
    config::fuzz_config(data);
}

fn load_config(path: Option<&Path>) -> Result<Config, Failure> {
    Config::load(path).map_err(|e| Failure::usage(e.into()))
}

/// Loads the configuration of a run; what is asked for on the command line says what is collected.
fn load_config_of(output: &OutputArgs) -> Result<Config, Failure> {
    let mut config = load_config(output.config.as_deref())?;
    config.inventory.wanted = output.inventory.is_some();
    Ok(config)
}

fn load_key(config: &Config) -> Result<offpath_types::IdentityKey, Failure> {
    let path = config.key_file();
    identity::load_or_create(&path)
        .with_context(|| {
            format!("identity key {}: set identity.key_file, or OFFPATH_STATE_DIR, to a place that can be written", path.display())
        })
        .map_err(Failure::usage)
}

fn replay(args: &ReplayArgs) -> Result<(), Failure> {
    let mut config = load_config_of(&args.output)?;
    config.decryption.live = args.follow && !args.keylog.is_empty();
    check_outputs(&args.output, &args.files, &config, &args.keylog)?;
    let key = load_key(&config)?;
    let delivery = if args.deliver { delivery::start(&config)? } else { None };
    let mut judge = Judge::new(&args.output, &config, key, delivery, false)?;
    let mut stats = args.output.stats.as_deref().map(StatsFile::open).transpose()?;
    let done = replay::run(args, &config, &mut judge)?;
    let ledger = finish(&args.output, &config, &mut judge, done.ledger, &mut stats, &done.problems)?;
    let late = ledger.pipeline.transactions_late_total;
    if late > 0 {
        return Err(Failure::ours(anyhow::anyhow!(
            "{late} transactions came out of order (please report this)"
        )));
    }
    if !done.problems.is_empty() {
        return Err(Failure::input(anyhow::anyhow!("{}", listed(&done.problems))));
    }
    balanced(&ledger)
}

fn attach(args: &AttachArgs) -> Result<(), Failure> {
    let mut config = load_config_of(&args.output)?;
    if !args.keylog.is_empty() {
        config.decryption.keylog.clone_from(&args.keylog);
    }
    config.decryption.live = !config.decryption.keylog.is_empty();
    check_outputs(&args.output, &[], &config, &config.decryption.keylog)?;
    let key = load_key(&config)?;
    let delivery = delivery::start(&config)?;
    let mut judge = Judge::new(&args.output, &config, key, delivery, true)?;
    let mut stats = args.output.stats.as_deref().map(StatsFile::open).transpose()?;
    let (ledger, failure) = attach::run(args, &config, &mut judge, &mut stats)?;
    let ledger = finish(&args.output, &config, &mut judge, ledger, &mut stats, &[])?;
    match failure {
        Some(failure) => Err(failure),
        None => balanced(&ledger),
    }
}

/// A file however it is spelled: device and inode of it, or of its folder with the name that it is to have.
type Place = (u64, u64, Option<std::ffi::OsString>);

/// Returns where `path` leads; nothing for what is no file (a pipe, a device, `-`), or could not be made there.
fn place(path: &Path) -> Option<Place> {
    use std::os::unix::fs::MetadataExt;
    if path == Path::new("-") {
        return None;
    }
    match std::fs::metadata(path) {
        Ok(found) => found.is_file().then(|| (found.dev(), found.ino(), None)),
        Err(_) => {
            let name = path.file_name()?.to_owned();
            let folder = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let folder = std::fs::metadata(folder).ok()?;
            Some((folder.dev(), folder.ino(), Some(name)))
        }
    }
}

/// Refuses outputs that are one of the inputs, or each other, before anything is truncated.
fn check_outputs(
    output: &OutputArgs,
    inputs: &[PathBuf],
    config: &Config,
    keylogs: &[PathBuf],
) -> Result<(), Failure> {
    let outputs = [
        ("--transactions", output.transactions.as_deref()),
        ("--decisions", output.decisions.as_deref()),
        ("--connections", output.connections.as_deref()),
        ("--stats", output.stats.as_deref()),
        ("--inventory", output.inventory.as_deref()),
    ];
    let given: Vec<_> = outputs.into_iter().filter_map(|(name, path)| Some((name, path?))).collect();
    // Names that cannot be expanded are an error of opening the inputs, later, or are followed once they are there.
    let expanded = |name: &PathBuf| {
        offpath_capture::input_files(std::slice::from_ref(name)).unwrap_or_else(|_| vec![name.clone()])
    };
    let mut read: Vec<_> = inputs.iter().flat_map(expanded).collect();
    read.extend(keylogs.iter().cloned().chain(output.config.clone()));
    read.extend(config.files());
    for (i, (name, path)) in given.iter().enumerate() {
        for (other, other_path) in &given[..i] {
            let same = path == other_path || place(path).is_some_and(|at| place(other_path) == Some(at));
            if same {
                return Err(Failure::usage(anyhow::anyhow!(
                    "{other} and {name} both go to {}",
                    path.display()
                )));
            }
        }
        let at = place(path);
        let is_input =
            |input: &&PathBuf| at.is_some() && place(input) == at || input == path && path.as_os_str() != "-";
        if let Some(input) = read.iter().find(is_input) {
            return Err(Failure::usage(anyhow::anyhow!(
                "{name} would overwrite the input {}",
                input.display()
            )));
        }
    }
    if inputs.iter().filter(|input| *input == Path::new("-")).count() > 1 {
        return Err(Failure::usage(anyhow::anyhow!("standard input can be read only once")));
    }
    Ok(())
}

/// Drains delivery, writes stats and the report.
fn finish(
    output: &OutputArgs,
    config: &Config,
    judge: &mut Judge,
    mut ledger: Ledger,
    stats: &mut Option<StatsFile>,
    problems: &[String],
) -> Result<Ledger, Failure> {
    judge.flush()?;
    if let Some(delivery) = judge.delivery() {
        delivery::drain(delivery, config);
    }
    judge.close()?;
    judge.fill(&mut ledger);
    if let Some(stats) = stats {
        stats.write(&ledger, judge, false)?;
    }
    judge.write_inventory()?;
    if !output.quiet {
        let mut text = judge.findings.render(&ledger, &judge.scorer().summary(), problems);
        text.push_str(&output::latency_line("packet to decision", &judge.detection_us));
        if let Some(delivery) = judge.delivery() {
            text.push_str(&delivery::report(&delivery.stats()));
        }
        let to_stdout =
            [&output.transactions, &output.decisions, &output.connections, &output.stats, &output.inventory]
                .iter()
                .all(|p| p.as_deref() != Some("-".as_ref()));
        // The report gives way to records on standard output.
        if to_stdout {
            print(&text)?;
        } else {
            eprint!("{text}");
        }
    }
    Ok(ledger)
}

/// Lines of problems shown; a damaged file can have very many of them.
const PROBLEMS_SHOWN: usize = 10;

/// Returns the first problems, and how many more there are.
fn listed(problems: &[String]) -> String {
    let mut lines: Vec<_> = problems.iter().take(PROBLEMS_SHOWN).cloned().collect();
    if problems.len() > PROBLEMS_SHOWN {
        lines.push(format!("… and {} more", problems.len() - PROBLEMS_SHOWN));
    }
    lines.join("\noffpath: ")
}

/// An unbalanced ledger is our failure, and is never passed over in silence.
fn balanced(ledger: &Ledger) -> Result<(), Failure> {
    if ledger.balanced() {
        return Ok(());
    }
    let lines: Vec<_> = ledger
        .balances()
        .into_iter()
        .filter(|b| !b.holds())
        .map(|b| format!("{}: {} against {}", b.name, b.came_in, b.went))
        .collect();
    Err(Failure::ours(anyhow::anyhow!(
        "the ledger does not balance (please report this): {}",
        lines.join("; ")
    )))
}

/// Writes to standard output; a reader that has gone is no panic.
fn print(text: impl AsRef<[u8]>) -> Result<(), Failure> {
    use std::io::Write;
    std::io::stdout().write_all(text.as_ref()).map_err(|e| Failure::ours(e.into()))
}

fn check(args: &CheckArgs) -> Result<(), Failure> {
    let config = load_config(Some(&args.file))?;
    if args.print {
        let text = toml::to_string_pretty(&config).map_err(|e| Failure::ours(e.into()))?;
        print(&text)
    } else {
        print(format!("{}: good\n", args.file.display()))
    }
}
