//! `whit push`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::access::AccessArgs;
use super::deliveries::{delivered_all, destinations};
use super::error::Error;
use super::output::Output;
use super::progress::{monitor, watched};
use super::rate::link_rate;
use super::receipt::{choices_text, receipt_text};
use super::rollout_text::{ended_well, rollout_text};
use super::rollouts::{follow_to_end, interrupted};
use super::workers::threads;
use crate::agent::Effort;
use crate::agent::push::{PushOptions, push};
use crate::agent::scan::{Links, Selection};
use crate::config;
use crate::restore::OutsideLinks;
use ground::faults::Fault;
use ground::ids::{ActionName, AppName};

const HELP: &str = "\
PATH is a directory or a file. Files that match `.whitignore` (gitignore syntax, in any folder) or \
--exclude are left out; the last matching pattern counts, and `!` before a pattern includes again. Kept: names \
as bytes, content, permission bits, symbolic links inside the tree, hard links, holes, empty directories. Not \
kept, with a note: owners that differ, set-id and sticky bits, capabilities, ACLs, extended \
attributes, FIFOs, sockets, devices. Times are not kept.

  whit push web ./dist --label v1.2.3 --to production
  whit push web ./dist --dry-run --json | jq .bytes.unseen
  whit push web ./dist --to dir:/srv/web          (without a proxy of your own)";

/// Where a push that was to be delivered is interrupted, nobody here knows how far the proxy was.
const INTERRUPTED_HINT: &str = "run the command again: it continues where it stopped; `whit deliveries` shows what the proxy goes on with";

/// Push a directory or file as a release of an application.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct PushArgs {
    /// The application.
    app: String,
    /// A directory or a file.
    path: PathBuf,
    /// A label for the release, like v1.2.3; not 6 to 64 hexadecimal digits, as an id is. May be given several times.
    #[arg(long, value_name = "LABEL")]
    label: Vec<String>,
    /// Deliver the release there: a destination of the proxy, or dir:PATH with a proxy inside the
    /// command; may be given several times. A group of the proxy: roll it out there, and follow that.
    #[arg(long, value_name = "DEST")]
    to: Vec<String>,
    /// An action of the proxy that is to follow each delivery, like restart; may be given several times.
    #[arg(long, value_name = "ACTION")]
    then: Vec<ActionName>,
    /// Leave out matching paths, in gitignore syntax; may be given several times.
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// How to treat symbolic links that lead outside the tree.
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    links: LinksHow,
    /// Push a tree without files, too; it is refused otherwise.
    #[arg(long)]
    allow_empty: bool,
    /// End once the release is stored and its deliveries are queued, without waiting for them.
    #[arg(long)]
    no_wait: bool,
    /// Negotiate and report what would be sent; store nothing.
    #[arg(long)]
    dry_run: bool,
    /// Leave the current release as it is: `whit promote` makes this one current later. The first release of an application
    /// becomes current all the same.
    #[arg(long)]
    no_current: bool,
    /// Make the release current although it was rolled back, and move labels that name other releases.
    #[arg(long = "move")]
    moves: bool,
    /// Make no release: only fill the proxy's cache, where the content is kept for a time. The next push finds it.
    #[arg(long, conflicts_with_all = ["label", "to", "then", "no_current", "moves", "no_wait", "dry_run"])]
    cache_only: bool,
    /// Read every file, also those with the size and times of the last push.
    #[arg(long)]
    checksum: bool,
    /// Neither use nor update this host's memory of its pushes.
    #[arg(long)]
    no_memory: bool,
    /// What to spare: bytes, time, or whatever is predicted to end the push first on this link.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t, env = "WHIT_EFFORT")]
    effort: EffortFor,
    /// How fast the link is, like 20mbit, instead of measuring and remembering it.
    #[arg(long, value_name = "RATE")]
    link: Option<String>,
    /// Push archives (zip, jar, whl, tar.gz and the like) and executables as plain bytes, without unpacking them.
    #[arg(long)]
    raw: bool,
    /// Say for each file why bytes were sent, and what would avoid it.
    #[arg(long)]
    explain: bool,
    /// Send no faster than this, like 20mbit.
    #[arg(long, value_name = "RATE")]
    limit_upload: Option<String>,
    /// How long to retry without progress, once the first connection was made.
    #[arg(long, value_name = "TIME", default_value = "5m")]
    retry_for: humantime::Duration,
    /// How much pushed content to keep on this host, in MiB for all applications: later pushes send
    /// only differences to it. 0 keeps none.
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    keep_basis: u64,
    #[command(flatten)]
    access: AccessArgs,
}

/// What a push spares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum EffortFor {
    /// Whatever is predicted to end the push first; bytes on links below 8 Mbit/s.
    #[default]
    Auto,
    /// Bytes: archives are unpacked, all is compressed as hard as possible.
    Bytes,
    /// Time of processors: archives and executables as they are, all compressed lightly.
    Time,
}

impl From<EffortFor> for Effort {
    fn from(effort: EffortFor) -> Self {
        match effort {
            EffortFor::Auto => Self::Auto,
            EffortFor::Bytes => Self::Bytes,
            EffortFor::Time => Self::Time,
        }
    }
}

/// How to treat links that lead outside the tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum LinksHow {
    /// List them and push nothing.
    #[default]
    Refuse,
    /// Push them as they are; a pull or delivery writes them only with `--links keep` or `outside_links`.
    Keep,
    /// Push their targets instead.
    Follow,
    /// Leave them out.
    Skip,
}

impl From<LinksHow> for Links {
    fn from(links: LinksHow) -> Self {
        match links {
            LinksHow::Refuse => Self::Refuse,
            LinksHow::Keep => Self::Keep,
            LinksHow::Follow => Self::Follow,
            LinksHow::Skip => Self::Skip,
        }
    }
}

/// Runs the command.
pub async fn run(arguments: PushArgs, output: &Output) -> Result<(), Error> {
    let outside_links =
        if arguments.links == LinksHow::Keep { OutsideLinks::Keep } else { OutsideLinks::Refuse };
    let (destinations, local) = destinations(&arguments.to, outside_links)?;
    let app: AppName = arguments.app.parse()?;
    let folders = local.values().flat_map(|place| place.folders());
    let mut disjoint: Vec<(PathBuf, &str)> =
        folders.map(|folder| (folder.of(&app), "a destination of this push")).collect();
    disjoint.extend(arguments.access.data_inside()?.map(|data| (data, "the data folder of the proxy")));
    let state = if arguments.no_memory { None } else { config::state_folder() };
    disjoint.extend(state.clone().map(|state| (state, "the folder in which whit remembers its pushes")));
    let options = PushOptions {
        selection: Selection {
            exclude: arguments.exclude,
            ignore_files_off: false,
            links: arguments.links.into(),
            needs_files: !arguments.allow_empty,
            disjoint,
        },
        labels: arguments.label.iter().map(|label| label.parse()).collect::<Result<_, _>>()?,
        destinations,
        no_wait: arguments.no_wait,
        dry_run: arguments.dry_run,
        keeps_current: arguments.no_current,
        moves: arguments.moves,
        cache_only: arguments.cache_only,
        threads: threads(),
        effort: arguments.effort.into(),
        link_rate: arguments.link.as_deref().map(link_rate).transpose()?,
        state,
        checksum: arguments.checksum,
        cache_bytes_max: arguments.keep_basis.saturating_mul(1024 * 1024),
        upload_rate_max: arguments.limit_upload.as_deref().map(link_rate).transpose()?,
        patience: arguments.retry_for.into(),
        raw: arguments.raw,
        explain: arguments.explain,
        then: arguments.then,
        ..PushOptions::new(app, arguments.path)
    };
    let (app, leaves) = (options.app.clone(), arguments.no_wait);
    let delivers = !options.destinations.is_empty();
    let open = arguments.access.open_within(options.patience, output, local).await?;
    let patience = open.patience.min(options.patience);
    let (mut pushed, mut rollout) = (None, None);
    let work = open.run(async |session| {
        let monitor = monitor(output, "sending");
        let receipt = watched(session, &*monitor, push(session, &options, &monitor)).await?;
        drop(monitor);
        rollout = receipt.rollout;
        pushed = Some(receipt);
        match rollout.filter(|_| !leaves) {
            Some(id) => Ok(Some(follow_to_end(session, &app, id, patience, output).await?)),
            None => Ok(None),
        }
    });
    let followed = Box::pin(work).await.map_err(|error| match error {
        error if rollout.is_some() => interrupted(error, rollout),
        Error::Interrupted if delivers => Error::Message {
            fault: Fault::Interrupted,
            text: "interrupted".to_owned(),
            hint: Some(INTERRUPTED_HINT.to_owned()),
        },
        error => error,
    });
    let Some(receipt) = pushed else {
        return followed.and(Err(crate::agent::Error::Ended.into()));
    };
    // The release is stored, whatever became of what followed.
    let (ended, followed) = match followed {
        Ok(ended) => {
            let rolled_out = ended.as_ref().map_or(Ok(()), ended_well);
            (ended, rolled_out)
        }
        Err(error) => (None, Err(error)),
    };
    let succeeded = if leaves { Ok(()) } else { delivered_all(&receipt.delivered).and(followed) };
    let mut value = json!(receipt);
    if receipt.rollout.is_some() {
        value["rolled_out"] = json!(ended);
    }
    output.report_with(&value, succeeded, || {
        let choices = options.explain.then(|| choices_text(&receipt));
        let goes_on = || receipt.rollout.map(|id| format!("{id} goes on"));
        let rollout = ended.as_ref().map(rollout_text).or_else(goes_on);
        let rollout = rollout.map(|text| format!("  rollout    {text}"));
        [Some(receipt_text(&receipt)), rollout, choices].into_iter().flatten().collect::<Vec<_>>().join("\n")
    })
}
