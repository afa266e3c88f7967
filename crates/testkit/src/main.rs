//! The testkit's command line: captures with known truth, impairments, measures, and the demo shop.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufReader, BufWriter};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use offpath_testkit::impair::{Impairment, Kept, impair_file};
use offpath_testkit::shop::{LoginStyle, ShopOptions};
use offpath_testkit::traffic::{Scenario, Traffic, TrafficOptions};
use offpath_testkit::{captures, flood, measure, plot, shop};
use offpath_types::Direction;

/// Makes and impairs captures with known truth, measures what Offpath found in them, and runs a shop.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes synthetic traffic of a shop, with the truth about every transaction.
    Traffic(TrafficArgs),
    /// Loses, repeats, swaps and cuts frames of a classic pcap file.
    Impair(ImpairArgs),
    /// Counts the transactions whose request head and response head came through an impairment.
    Survivors {
        /// Truth file of the clean capture.
        truth: PathBuf,
        /// What `impair --kept` wrote.
        kept: PathBuf,
        /// Prints the number of every survivor as well.
        #[arg(long)]
        list: bool,
    },
    /// Compares Offpath's transactions with the truth: how many were recovered of those whose heads survived.
    Recovered {
        /// Truth file of the clean capture.
        truth: PathBuf,
        /// What `impair --kept` wrote; `-` where nothing was impaired.
        kept: PathBuf,
        /// Offpath's transactions.
        transactions: PathBuf,
        /// Fails below this percentage.
        #[arg(long, default_value_t = 0.0)]
        min: f64,
        /// Fails above this number of wrong pairings.
        #[arg(long)]
        max_wrong: Option<u64>,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Compares Offpath's confidences with the truth: coverage, false positives, calibration.
    Detection {
        /// Truth file.
        truth: PathBuf,
        /// Offpath's transactions.
        transactions: PathBuf,
        /// Confidence from which on a transaction counts as flagged.
        #[arg(long, default_value_t = 90.0)]
        threshold: f64,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Makes the golden captures and the demo capture anew.
    Captures {
        /// Where the folders go.
        #[arg(default_value = "captures")]
        root: PathBuf,
    },
    /// Runs the demo shop until interrupted.
    Shop(ShopArgs),
    /// Writes open flows around a SYN flood, to measure memory and whether the flows live on.
    Flood {
        /// Connections that stay open: each makes a request before the flood and one after it.
        #[arg(long, default_value_t = 1000)]
        flows: u32,
        /// SYNs from as many addresses and ports.
        #[arg(long, default_value_t = 5_000_000)]
        syns: u32,
        /// Requests of each connection; those of a round come before those of the next.
        #[arg(long, default_value_t = 2)]
        rounds: u32,
        /// Capture file to write; `-` is standard output.
        #[arg(long)]
        out: PathBuf,
    },
    /// Draws a line chart, described in JSON, as SVG.
    Plot {
        /// The chart: `{"title", "x", "y", "log_x", "series": [{"name", "points": [[x, y], …]}, …]}`.
        input: PathBuf,
        /// The picture to write.
        output: PathBuf,
    },
    /// Prints the password of one of the demo shop's customers.
    Password {
        /// The customer: `user1` to `user500`.
        user: String,
    },
}

#[derive(clap::Args)]
struct TrafficArgs {
    /// How many transactions, attacks included.
    #[arg(long, default_value_t = 10_000)]
    transactions: u64,
    /// About how large the capture is to be: 200MB, 3GB, 500KB or bytes.
    #[arg(long, value_parser = parse_bytes)]
    bytes: Option<u64>,
    /// Seed of everything.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Attacks beside people, offices, apps and partners.
    #[arg(long, value_enum, default_value = "people")]
    scenario: ScenarioName,
    /// Over how many seconds.
    #[arg(long, default_value_t = 600)]
    duration: u64,
    /// Transactions of each kind of attack.
    #[arg(long)]
    attack_transactions: Option<u64>,
    /// Leaves empty acknowledgments out, as a capture filter would.
    #[arg(long)]
    no_empty_acks: bool,
    /// The capture to write.
    #[arg(long)]
    out: PathBuf,
    /// The truth file to write.
    #[arg(long)]
    truth: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum ScenarioName {
    People,
    AtoFast,
    AtoSlow,
    Spray,
    Brute,
    Mixed,
    Demo,
}

#[derive(clap::Args)]
struct ImpairArgs {
    /// Classic pcap file.
    input: PathBuf,
    /// The impaired file to write.
    output: PathBuf,
    /// Percentage of frames lost.
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// Percentage of frames seen twice.
    #[arg(long, default_value_t = 0.0)]
    dup: f64,
    /// Percentage of frames that change places with the next one.
    #[arg(long, default_value_t = 0.0)]
    swap: f64,
    /// Keeps one direction only.
    #[arg(long, value_enum)]
    only: Option<DirectionName>,
    /// Port that tells the server; without it the lower port does.
    #[arg(long)]
    server_port: Option<u16>,
    /// Drops the first seconds, so that connections are joined in the middle.
    #[arg(long, default_value_t = 0.0)]
    skip_secs: f64,
    /// Drops so many frames at the start.
    #[arg(long, default_value_t = 0)]
    skip_frames: u64,
    /// Cuts frames at this length.
    #[arg(long)]
    snaplen: Option<u32>,
    /// FRAME:MILLISECONDS: from that frame on the clock is so much later (or, negative, earlier).
    #[arg(long, value_parser = parse_step, allow_hyphen_values = true)]
    time_step: Option<(u64, i64)>,
    /// Seed of all chances.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Side file for `survivors` and `recovered`; OUTPUT.kept.json by default.
    #[arg(long)]
    kept: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum DirectionName {
    ToServer,
    ToClient,
}

#[derive(clap::Args)]
struct ShopArgs {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// How a refused login is answered.
    #[arg(long, value_enum, default_value = "status")]
    login_style: LoginStyleName,
    /// Makes session and form tokens repeat; without it they cannot be guessed.
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum LoginStyleName {
    Status,
    Form,
    Redirect,
    Json200,
}

fn main() -> Result<()> {
    match Args::parse().command {
        Command::Traffic(args) => traffic(&args),
        Command::Impair(args) => impair(args),
        Command::Survivors { truth, kept, list } => survivors(&truth, &kept, list),
        Command::Recovered { truth, kept, transactions, min, max_wrong, json } => {
            let kept = if kept == Path::new("-") { Kept::default() } else { read_kept(&kept)? };
            let result = measure::recovery(&read_truth(&truth)?, &kept, &read_found(&transactions)?);
            print(&result, json)?;
            if result.percent() < min {
                bail!("recovered {:.3} %, less than {min} %", result.percent());
            }
            if max_wrong.is_some_and(|max| result.wrong > max) {
                bail!("{} wrong pairings", result.wrong);
            }
            Ok(())
        }
        Command::Detection { truth, transactions, threshold, json } => {
            print(&measure::detection(&read_truth(&truth)?, &read_found(&transactions)?, threshold), json)
        }
        Command::Captures { root } => {
            for made in captures::make_all(&root)? {
                println!("{:<36} {:>7} bytes", made.name, made.bytes);
            }
            Ok(())
        }
        Command::Shop(args) => run_shop(&args),
        Command::Flood { flows, syns, rounds, out } => {
            let file: Box<dyn io::Write> = if out.as_os_str() == "-" {
                Box::new(io::stdout())
            } else {
                Box::new(File::create(&out).with_context(|| out.display().to_string())?)
            };
            flood::write(BufWriter::with_capacity(1 << 20, file), flows, syns, rounds)
                .context("flood")
                .map(drop)
        }
        Command::Plot { input, output } => {
            let text = std::fs::read_to_string(&input).with_context(|| input.display().to_string())?;
            let chart = serde_json::from_str(&text).with_context(|| input.display().to_string())?;
            let picture = plot::svg(&chart).context("no chart: it needs series with names and points")?;
            std::fs::write(&output, picture).with_context(|| output.display().to_string())
        }
        Command::Password { user } => {
            println!("{}", shop::password_of(&user).context("no such customer")?);
            Ok(())
        }
    }
}

fn traffic(args: &TrafficArgs) -> Result<()> {
    let scenario = match args.scenario {
        ScenarioName::People => Scenario::People,
        ScenarioName::AtoFast => Scenario::AtoFast,
        ScenarioName::AtoSlow => Scenario::AtoSlow,
        ScenarioName::Spray => Scenario::Spray,
        ScenarioName::Brute => Scenario::Brute,
        ScenarioName::Mixed => Scenario::Mixed,
        ScenarioName::Demo => Scenario::Demo,
    };
    let options = TrafficOptions {
        transactions: args.transactions,
        bytes: args.bytes,
        seed: args.seed,
        scenario,
        duration_secs: args.duration.max(1),
        attack_transactions: args.attack_transactions,
        empty_acks: !args.no_empty_acks,
        ..TrafficOptions::default()
    };
    let (out, truth) = (create(&args.out)?, create(&args.truth)?);
    let done = Traffic::generate(&options).write(out, truth)?;
    println!(
        "{}: {} transactions, {} connections, {} frames, {} bytes",
        args.out.display(),
        done.transactions,
        done.connections,
        done.frames,
        done.bytes
    );
    Ok(())
}

fn impair(args: ImpairArgs) -> Result<()> {
    let impairment = Impairment {
        loss_percent: args.loss,
        duplicate_percent: args.dup,
        swap_percent: args.swap,
        only: args.only.map(|d| match d {
            DirectionName::ToServer => Direction::ToServer,
            DirectionName::ToClient => Direction::ToClient,
        }),
        server_port: args.server_port,
        start_after_frames: args.skip_frames,
        start_after_nanos: (args.skip_secs.max(0.0) * 1e9) as u64,
        snaplen: args.snaplen,
        time_step: args.time_step.map(|(frame, millis)| (frame, millis.saturating_mul(1_000_000))),
        seed: args.seed,
    };
    let kept_path = args.kept.unwrap_or_else(|| {
        let mut name = args.output.clone().into_os_string();
        name.push(".kept.json");
        PathBuf::from(name)
    });
    let kept = impair_file(open(&args.input)?, create(&args.output)?, impairment)
        .with_context(|| args.input.display().to_string())?;
    kept.write(create(&kept_path)?)?;
    println!(
        "{}: {} frames in, {} lost, {} repeated, {} pairs swapped, {} cut, {} frames out",
        args.output.display(),
        kept.frames_in,
        kept.dropped.len(),
        kept.duplicated,
        kept.swapped,
        kept.cut.len(),
        kept.frames_out
    );
    Ok(())
}

fn survivors(truth: &Path, kept: &Path, list: bool) -> Result<()> {
    let (truth, kept) = (read_truth(truth)?, read_kept(kept)?);
    let survivors: Vec<u64> = truth.iter().filter(|t| t.heads_survived(&kept)).map(|t| t.tx).collect();
    if list {
        for tx in &survivors {
            println!("{tx}");
        }
    }
    eprintln!("{} of {} transactions kept both heads", survivors.len(), truth.len());
    Ok(())
}

fn run_shop(args: &ShopArgs) -> Result<()> {
    let login_style = match args.login_style {
        LoginStyleName::Status => LoginStyle::Status,
        LoginStyleName::Form => LoginStyle::Form,
        LoginStyleName::Redirect => LoginStyle::Redirect,
        LoginStyleName::Json200 => LoginStyle::Json200,
    };
    let options = ShopOptions { login_style, seed: args.seed, ..ShopOptions::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(args.listen).await.context(args.listen)?;
        println!("shop on http://{}/", listener.local_addr()?);
        shop::serve(listener, options, shop::interrupted()).await.context("shop")
    })
}

fn print<T: std::fmt::Display + serde::Serialize>(value: &T, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(value)?);
    } else {
        print!("{value}");
    }
    Ok(())
}

fn open(path: &Path) -> Result<BufReader<File>> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    Ok(BufReader::with_capacity(1 << 20, file))
}

fn create(path: &Path) -> Result<BufWriter<File>> {
    let file = File::create(path).with_context(|| path.display().to_string())?;
    Ok(BufWriter::with_capacity(1 << 20, file))
}

fn read_truth(path: &Path) -> Result<Vec<measure::Truth>> {
    measure::read_truth(open(path)?).with_context(|| path.display().to_string())
}

fn read_found(path: &Path) -> Result<Vec<measure::Found>> {
    measure::read_found(open(path)?).with_context(|| path.display().to_string())
}

fn read_kept(path: &Path) -> Result<Kept> {
    Kept::read(open(path)?).with_context(|| path.display().to_string())
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[at..].to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" | "KB" => 1000,
        "M" | "MB" => 1_000_000,
        "G" | "GB" => 1_000_000_000,
        other => return Err(format!("unknown unit {other}: use KB, MB or GB")),
    };
    text[..at].parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).ok_or_else(|| "not a size".to_owned())
}

fn parse_step(text: &str) -> Result<(u64, i64), String> {
    let (frame, millis) = text.split_once(':').ok_or("FRAME:MILLISECONDS")?;
    match (frame.parse(), millis.parse()) {
        (Ok(frame), Ok(millis)) => Ok((frame, millis)),
        _ => Err("FRAME:MILLISECONDS, both whole numbers".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_steps_are_parsed() {
        assert_eq!(parse_bytes("200MB"), Ok(200_000_000));
        assert_eq!(parse_bytes("12"), Ok(12));
        assert!(parse_bytes("12 miles").is_err() && parse_bytes("MB").is_err());
        assert_eq!(parse_step("10:-500"), Ok((10, -500)));
        assert!(parse_step("10").is_err());
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}
