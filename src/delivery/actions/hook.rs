//! Hooks: commands that follow an event.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::definition::HookDefinition;
use super::event::Happened;
use crate::delivery::command::{Command, Ended};
use ground::faults::Faulty as _;

/// The most of a hook's last lines in a report.
const OUTPUT_BYTES: usize = 2000;

/// The result of a hook.
#[derive(Debug)]
pub struct HookRan {
    /// Why it failed, if it did.
    pub failure: Option<String>,
    /// The last lines of what it printed.
    pub output: String,
}

/// Runs a hook, with the body of a webhook on its standard input, which it may leave unread. None if it was cancelled.
pub fn run(hook: &HookDefinition, happened: &Happened, cancelled: &AtomicBool) -> Option<HookRan> {
    let command = Command {
        program: hook.command.program().to_owned(),
        arguments: hook.command.arguments(),
        environment: hook.env.with(&hook.pass_env, &happened.variables()),
        folder: hook.folder.as_deref().unwrap_or(Path::new("/")).to_owned(),
        time: Duration::from_secs(hook.seconds),
        grace: Duration::from_secs(hook.grace),
    };
    let body = happened.body();
    let ran = match command.run_with_input(cancelled, |out| out.write_all(&body)) {
        Ok((ran, _)) => ran,
        Err(error) => {
            let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
            return Some(HookRan { failure: Some(format!("{error}{hint}")), output: String::new() });
        }
    };
    let mut failure = match ran.ended {
        Ended::Exited(0) => None,
        Ended::Stopped => return None,
        ended => Some(format!("it {ended}")),
    };
    if ran.left_open {
        // Success of the command alone is none: what it started was killed.
        failure.get_or_insert_with(|| "it left its output open; what it had started was killed".to_owned());
    }
    Some(HookRan { failure, output: ran.last_lines(OUTPUT_BYTES) })
}
