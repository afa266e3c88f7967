//! A progress bar, where standard error is a terminal.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// Shows how much of the input was read; does nothing when hidden.
pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    /// Starts a bar if `wanted` and standard error is a terminal.
    pub(crate) fn start(wanted: bool) -> Self {
        if !wanted || !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::no_length();
        let style = "{spinner} {bytes}/{total_bytes} {bar:40} {binary_bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Self(Some(bar))
    }

    /// Sets bytes read and, where it is known, how many there are.
    pub(crate) fn update(&self, (read, total): (u64, Option<u64>)) {
        if let Some(bar) = &self.0 {
            if let Some(total) = total {
                bar.set_length(total);
            }
            bar.set_position(read);
        }
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
