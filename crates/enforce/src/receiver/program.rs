//! Runs a program with a time limit that holds for everything it starts.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Kills a process group on drop: a script's own children hang as well as the script does.
// Invariant: `Some` only while the leader has not been waited for, so that its number is nobody else's.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It fails where all of it ended by itself.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Runs `command` in a process group of its own with `input` on its standard input, at most for `time_max`.
///
/// The error says how it ended; never the command, whose arguments may hold a secret.
pub(super) async fn run(command: &mut Command, input: &str, time_max: Duration) -> Result<(), String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| e.to_string())?;
    let leader = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let mut group = Group(leader);
    let ended = tokio::time::timeout(time_max, async {
        if let Some(mut stdin) = child.stdin.take() {
            // A program that does not read its input is still judged by its exit code.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait().await
    });
    match ended.await {
        Ok(status) => {
            group.0 = None;
            match status {
                Ok(status) if status.success() => Ok(()),
                Ok(status) => Err(status.to_string()),
                Err(e) => Err(e.to_string()),
            }
        }
        Err(_) => Err("took too long".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, input: &str, ms: u64) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut command = Command::new("/bin/sh");
        runtime.block_on(run(command.arg("-c").arg(script), input, Duration::from_millis(ms)))
    }

    #[test]
    fn how_programs_end() {
        for (script, input, want) in [
            ("exit 0", "", Ok(())),
            ("read x; [ \"$x\" = hello ]", "hello\n", Ok(())),
            ("exit 3 # s3cret", "", Err("exit status: 3")),
            ("exit 0", "not read\n", Ok(())),
        ] {
            assert_eq!(shell(script, input, 20_000), want.map_err(str::to_owned), "{script}");
        }
        let mut missing = Command::new("/nonexistent/program");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert!(runtime.block_on(run(&mut missing, "", Duration::from_secs(1))).is_err());
    }

    #[test]
    fn what_a_hanging_program_started_ends_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {0}.new; mv {0}.new {0}; wait", pid.display());
        assert_eq!(shell(&script, "", 1000), Err("took too long".to_owned()));
        let child = std::fs::read_to_string(&pid).expect("the script started its child in time");
        // Gone, or a zombie that nobody has waited for yet.
        let alive = || {
            std::fs::read_to_string(format!("/proc/{}/stat", child.trim()))
                .is_ok_and(|stat| !stat.contains(") Z ") && !stat.contains(") X "))
        };
        let start = crate::clock::instant();
        while alive() {
            assert!(start.elapsed() < Duration::from_secs(10), "the script's child is still there");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
