//! `offpath receive`: the daemon beside the WAF, and its client.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use offpath_enforce::receiver::{self, ProviderConfig, Receiver, ReceiverConfig};
use zeroize::Zeroizing;

use crate::args::ReceiveArgs;
use crate::config::{Config, ReceiveSection, nets};
use crate::exit::{Failure, stop_on_signal};

/// Runs the daemon until a signal, or asks a running one.
pub(crate) fn run(args: &ReceiveArgs) -> Result<(), Failure> {
    let config = Config::load(args.config.as_deref()).map_err(|e| Failure::usage(e.into()))?;
    let section = &config.receive;
    let listen = args.listen.as_deref().unwrap_or(&section.listen);
    if args.list {
        return list(listen, section);
    }
    if let Some(id) = &args.undo {
        let token = admin_token(section).map_err(Failure::usage)?;
        receiver::undo(listen, token.as_deref().map(String::as_str), id)
            .map_err(|e| Failure::ours(e.into()))?;
        println!("undone: {id}");
        return Ok(());
    }
    let config = daemon(args, section, listen).map_err(Failure::usage)?;
    let shutdown = stop_on_signal()?;
    if let Some(path) = &config.state_path {
        crate::identity::make_folder_of(path)
            .with_context(|| format!("cannot make the folder of the state {}", path.display()))
            .map_err(Failure::ours)?;
    }
    let to: Vec<_> = config.to.iter().map(ToString::to_string).collect();
    let receiver = Receiver::start(config).map_err(|e| Failure::ours(e.into()))?;
    if !args.quiet {
        eprintln!(
            "offpath: receiving on http://{}/v1/decisions, applying to {}",
            receiver.addr(),
            to.join(", ")
        );
    }
    let counters = receiver.stop_on(&shutdown);
    if !args.quiet {
        for (name, value) in counters.fields() {
            if value > 0 {
                eprintln!("offpath: {name} {value}");
            }
        }
    }
    Ok(())
}

fn daemon(args: &ReceiveArgs, section: &ReceiveSection, listen: &str) -> anyhow::Result<ReceiverConfig> {
    let listen: SocketAddr = listen.parse().with_context(|| format!("`{listen}` is no address and port"))?;
    let to = if args.to.is_empty() { &section.to } else { &args.to };
    anyhow::ensure!(
        !to.is_empty(),
        "nowhere to apply decisions: give --to, or set receive.to in the configuration"
    );
    let to = to.iter().map(|t| Ok(t.parse::<ProviderConfig>()?)).collect::<anyhow::Result<Vec<_>>>()?;
    let secrets = args
        .secret_file
        .as_deref()
        .or(section.secret_file.as_deref())
        .context("no secret: give --secret-file, or set receive.secret_file; webhooks without a valid signature are refused")?;
    Ok(ReceiverConfig {
        listen,
        secrets: crate::delivery::read_secrets(secrets)?,
        tolerance_secs: section.tolerance_secs,
        state_path: Some(args.state.clone().unwrap_or_else(|| section.state_path())),
        allow: nets(&section.allow),
        to,
        admin_token: admin_token(section)?,
        ttl_max_secs: section.ttl_max_secs,
        prefix_v4_min: section.prefix_v4_min,
        prefix_v6_min: section.prefix_v6_min,
        blocks_max: section.blocks_max,
        body_bytes_max: section.body_bytes_max,
        connections_max: section.connections_max,
        reconcile_ms: section.reconcile_ms,
        ..ReceiverConfig::default()
    })
}

fn admin_token(section: &ReceiveSection) -> anyhow::Result<Option<Zeroizing<String>>> {
    let Some(path) = section.admin_token_file.as_deref() else { return Ok(None) };
    let text = read_token(path).with_context(|| format!("cannot read {}", path.display()))?;
    anyhow::ensure!(text.len() >= 16, "{}: an admin token has at least 16 characters", path.display());
    Ok(Some(text))
}

fn read_token(path: &Path) -> std::io::Result<Zeroizing<String>> {
    let text = Zeroizing::new(std::fs::read_to_string(path)?);
    Ok(Zeroizing::new(text.trim().to_owned()))
}

fn list(listen: &str, section: &ReceiveSection) -> Result<(), Failure> {
    let token = admin_token(section).map_err(Failure::usage)?;
    let blocks =
        receiver::list(listen, token.as_deref().map(String::as_str)).map_err(|e| Failure::ours(e.into()))?;
    let mut out = std::io::stdout().lock();
    for block in blocks {
        let line = serde_json::to_string(&block).map_err(|e| Failure::ours(e.into()))?;
        writeln!(out, "{line}").map_err(|e| Failure::ours(e.into()))?;
    }
    Ok(())
}
