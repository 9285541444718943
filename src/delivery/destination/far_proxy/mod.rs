//! Another proxy: a delivery pushes the release there, chunk by chunk, and its own deliveries follow.
//!
//! It sends what a push of the same files would: only chunks that the other proxy lacks, encoded against the
//! release that it confirmed last. A delivery that was cut off goes on where it was. The token never appears in an error, a
//! log or `Debug`.

mod visit;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::Deserialize;

use self::visit::Visits;
use super::driver::Driver;
use super::secret::SecretFrom;
use super::{Check, Delivered, Destination, Error, Job, KeptCopy, Mistake, PLACEHOLDER, Preview, preview};
use crate::agent::Receipt;
use crate::agent::push::{PushOptions, StoredRelease, push_stored};
use crate::restore::Mapping;
use disk::crash_points;
use format::record::{DeliveryEvent, DeliveryState};
use format::shown::ShownState;
use ground::ids::{AppName, DestinationName, ReleaseId};
use ground::monitor::{Monitor, Silent};
use ground::rate::bytes_a_second;
use protocol::address::ProxyUrl;
use protocol::token::{Action, Grant, claimed};
use protocol::wire::{RolloutState, RolloutStatus};

/// Releases that the other proxy is taken to have still: bases of later deliveries, which it need not confirm.
const KEPT_MAX: usize = 3;
/// How long one try goes on connecting while the other proxy stores nothing new; then the queue decides.
const PATIENCE: Duration = Duration::from_secs(20);
/// The step of a delivery whose push has begun, and of one whose release the other proxy has recorded.
const BEGUN: u64 = 1;
const RECORDED: u64 = 2;
/// Threads that encode.
const THREADS: usize = 2;
/// Bytes of the other proxy's answer in a report.
const ANSWER_BYTES_MAX: usize = 2000;

/// A destination that is another proxy, and the keys that define one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FarProxy {
    /// Its address with its fingerprint.
    url: ProxyUrl,
    /// A file or variable with a token of it, made with `--on-behalf`.
    token: SecretFrom,
    /// The application there; `{app}` stands for the one here. The same by default.
    #[serde(default = "same_app")]
    app: String,
    /// Its destinations, and at most one group.
    #[serde(default)]
    to: Vec<DestinationName>,
    /// The most bits a second that may be sent.
    limit: Option<String>,
    /// True if the release keeps its labels.
    #[serde(default = "yes")]
    labels: bool,
    /// True if a delivery waits for those of the other proxy and for its rollout, and fails as they do.
    #[serde(default = "yes")]
    wait: bool,
}

fn same_app() -> String {
    PLACEHOLDER.to_owned()
}

fn yes() -> bool {
    true
}

impl FarProxy {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The first key whose value is a mistake.
    pub fn check(&self) -> Result<(), (&'static str, Mistake)> {
        let some_app = "app".parse().expect("a name");
        if self.app_of(&some_app).is_err() {
            return Err(("app", Mistake::App(self.app.clone())));
        }
        if let SecretFrom::File(path) = &self.token
            && !path.is_absolute()
        {
            return Err(("token", Mistake::Relative(path.clone())));
        }
        match &self.limit {
            Some(limit) if bytes_a_second(limit).is_none() => Err(("limit", Mistake::Rate(limit.clone()))),
            _ => Ok(()),
        }
    }

    /// Creates the destination.
    pub fn open(&self) -> Arc<dyn Destination> {
        Arc::new(Remote { definition: self.clone(), driver: Driver::default() })
    }

    /// Returns the application's name at the other proxy.
    fn app_of(&self, app: &AppName) -> Result<AppName, Mistake> {
        let name = self.app.replace(PLACEHOLDER, app.as_str());
        name.parse().map_err(|_| Mistake::App(self.app.clone()))
    }

    /// Returns the host and port, for people.
    fn place(&self) -> String {
        format!("whit://{}:{}", self.url.host(), self.url.port())
    }

    /// Returns the options of a push on the job's behalf.
    fn options(&self, job: &Job<'_>) -> Result<PushOptions, Error> {
        Ok(PushOptions {
            labels: if self.labels { job.labels.to_vec() } else { Vec::new() },
            destinations: self.to.clone(),
            // What is not current here does not become so there. What became so there stays so, unless others moved it since.
            keeps_current: !job.is_current || started(job) >= RECORDED,
            threads: THREADS,
            upload_rate_max: self.limit.as_deref().and_then(bytes_a_second),
            patience: PATIENCE,
            no_wait: !self.wait,
            behalf: job.behalf.to_vec(),
            ..PushOptions::new(self.app_of(job.app)?, PathBuf::new())
        })
    }

    /// Judges what became of the other proxy's deliveries.
    fn judge(&self, events: &[DeliveryEvent]) -> Result<(), Error> {
        for DeliveryEvent { destination, state, .. } in events {
            let (reason, is_passing) = match state {
                // It knows what comes in its place.
                DeliveryState::Delivered(_) | DeliveryState::Skipped { .. } => continue,
                DeliveryState::Retrying { reason, .. } => (reason.clone(), true),
                DeliveryState::Failed { reason, .. } => (reason.clone(), false),
                DeliveryState::Cancelled { by } => (format!("`{by}` cancelled it"), false),
                DeliveryState::Queued | DeliveryState::Running(_) | DeliveryState::Stranded => {
                    ("it has not ended yet".to_owned(), true)
                }
            };
            let (proxy, destination) = (self.place(), destination.clone());
            return Err(Error::Onward { proxy, destination, reason, is_passing });
        }
        Ok(())
    }

    /// Judges how the other proxy's rollout ended.
    fn judge_rollout(&self, rollout: &RolloutStatus) -> Result<(), Error> {
        let reason = match &rollout.state {
            // It knows what comes in its place.
            RolloutState::Succeeded | RolloutState::Superseded { .. } => return Ok(()),
            RolloutState::RolledBack { reason } => format!("it was rolled back, as {reason}"),
            RolloutState::Failed { reason } => reason.clone(),
            RolloutState::Aborted { by } => format!("`{by}` ended it"),
            RolloutState::Waiting { .. }
            | RolloutState::Running
            | RolloutState::Held { .. }
            | RolloutState::RollingBack { .. } => "it has not ended yet".to_owned(),
        };
        let (proxy, destination) = (self.place(), rollout.group.clone());
        Err(Error::Onward { proxy, destination, reason, is_passing: !rollout.state.is_last() })
    }

    /// Returns what a token lacks of the rights that deliveries need; none if nothing.
    fn lacks(&self, grant: &Grant) -> Option<String> {
        let app = if self.app.contains(PLACEHOLDER) { None } else { self.app.parse().ok() };
        if !grant.allows(Action::Push, app.as_ref()) {
            return Some(format!("it does not allow push of `{}`", self.app));
        }
        if !grant.on_behalf {
            return Some("it was made without --on-behalf".to_owned());
        }
        let refused = self.to.iter().find(|destination| !grant.allows_destination(destination));
        refused.map(|destination| format!("it does not allow destination `{destination}`"))
    }
}

/// The destination, and what runs its conversations.
#[derive(Debug)]
struct Remote {
    definition: FarProxy,
    driver: Driver,
}

impl Remote {
    fn visits(&self) -> Visits<'_> {
        let FarProxy { url, token, .. } = &self.definition;
        Visits { url, token, driver: &self.driver }
    }

    /// Pushes the release; where that waits, follows its rollout to the end. A try that loses it there finds it with the next push.
    fn push(
        &self,
        job: &Job<'_>,
        options: &PushOptions,
    ) -> Result<(Receipt, Option<Box<RolloutStatus>>), Error> {
        let shown = job.shown.shown();
        let release = job.release();
        let was_begun = |state| matches!(state, ShownState::Partial { started, .. } if started >= BEGUN);
        let is_cut = |state, of: ReleaseId| of == release && was_begun(state);
        let mut confirmed: Vec<ReleaseId> = shown.complete().map(|entry| entry.release).collect();
        // Of a release that it has already, nothing is sent before it is asked for.
        confirmed.sort_by_key(|earlier| *earlier != release);
        let stored = Arc::new(StoredRelease {
            root: job.root.clone(),
            source: job.source.shared().ok_or(Error::NotStored)?,
            base: confirmed.into_iter().find_map(|earlier| (job.root_of)(&earlier)),
            was_cut: shown.partial().any(|entry| is_cut(entry.state, entry.release)),
        });
        if !options.dry_run && started(job) < BEGUN {
            job.shown.note(BEGUN, 0)?;
            crash_points::point("release.begun");
        }
        self.visits().make(job.cancelled, job.monitor, async |session, monitor| {
            let receipt = Box::pin(push_stored(session, options, &stored, monitor)).await?;
            let rollout = match receipt.rollout.filter(|_| !options.no_wait) {
                Some(id) => Some(Box::new(visit::follow(session, &options.app, id).await?)),
                None => None,
            };
            Ok((receipt, rollout))
        })
    }
}

impl Destination for Remote {
    /// Ends when the other proxy has the release and, with `wait`, when its deliveries have ended.
    fn deliver(&self, job: &Job<'_>) -> Result<Delivered, Error> {
        let (receipt, rollout) = self.push(job, &self.definition.options(job)?)?;
        crash_points::point("release.passed");
        job.shown.note(RECORDED, 0)?;
        if self.definition.wait {
            self.definition.judge(&receipt.delivered)?;
            rollout.as_ref().map_or(Ok(()), |rollout| self.definition.judge_rollout(rollout))?;
        }
        let bytes = job.root.totals.bytes;
        let earlier = job.shown.shown();
        let earlier = earlier.complete().map(|entry| entry.release).filter(|other| *other != job.release());
        Ok(Delivered {
            place: self.describe(Some(job.app)),
            files: receipt.files,
            bytes,
            reused_bytes: bytes.saturating_sub(receipt.bytes.unseen),
            already: receipt.unchanged && receipt.bytes.sent == 0,
            sent_bytes: receipt.wire.up,
            requests: u64::from(receipt.round_trips),
            answer: Some(answer(&receipt, rollout.as_deref())),
            kept: std::iter::once(job.release()).chain(earlier).take(KEPT_MAX).collect(),
        })
    }

    /// Asks the other proxy whether it would take the release; compares with the release that it confirmed last.
    fn plan(&self, job: &Job<'_>) -> Result<Preview, Error> {
        let options = PushOptions { dry_run: true, ..self.definition.options(job)? };
        self.push(job, &options)?;
        let current = job.shown.shown().current().and_then(|entry| (job.root_of)(&entry.release));
        let planned = preview::compare(job.root, current.as_ref(), job.source, &Mapping::default())?;
        // Releases stay there until that proxy removes them.
        Ok(Preview { delete: Vec::new(), ..planned })
    }

    fn check(&self, cancelled: &AtomicBool) -> Vec<Check> {
        let place = self.definition.place();
        let token = self.definition.token.read();
        let mut checks = vec![Check::of("read the token", token.as_ref().map(|_| ()))];
        let Ok(token) = token else { return checks };
        let silent: &dyn Monitor = &Silent;
        let asked = self.visits().make(cancelled, silent, async |session, _| visit::identify(session).await);
        match asked {
            Err(error) => checks.push(Check::of(&format!("reach {place} and show the token"), Err(&error))),
            Ok(info) => {
                let ends = info.expires.map_or_else(
                    || "for as long as it is not revoked".to_owned(),
                    |expires| format!("for {} more days", expires.saturating_sub(info.now) / (24 * 3600)),
                );
                let (user, space) = (&info.user, &info.space);
                let step = format!(
                    "reach {place}, whit {}, and show the token: of user `{user}` in space `{space}`, {ends}",
                    ground::escape::text(&info.whit)
                );
                checks.push(Check::of(&step, Ok(())));
                let lacks = claimed(token.reveal())
                    .map_or(Some("it cannot be read".to_owned()), |grant| self.definition.lacks(&grant));
                checks.push(Check { step: "find the token's rights sufficient".to_owned(), failure: lacks });
            }
        }
        checks
    }

    fn kind(&self) -> &'static str {
        "proxy"
    }

    /// Nothing: a release is fetched back from another proxy by `whit pull`.
    fn read_back(&self, _app: &AppName, _release: &ReleaseId) -> Vec<Box<dyn KeptCopy>> {
        Vec::new()
    }

    fn describe(&self, app: Option<&AppName>) -> String {
        let name = app.map(|app| self.definition.app.replace(PLACEHOLDER, app.as_str()));
        format!("{} of {}", name.as_deref().unwrap_or(&self.definition.app), self.definition.place())
    }
}

/// Returns the step that earlier tries of the delivery have reached.
fn started(job: &Job<'_>) -> u64 {
    let shown = job.shown.shown();
    match shown.entries.first().filter(|entry| entry.delivery == job.id.number).map(|entry| entry.state) {
        Some(ShownState::Partial { started, .. }) => started,
        _ => 0,
    }
}

/// Returns what the other proxy did, for people.
fn answer(receipt: &Receipt, rollout: Option<&RolloutStatus>) -> String {
    let mut text = match receipt.sequence {
        Some(sequence) => format!("release {sequence} of {} there", receipt.app),
        None => format!("a release of {} there", receipt.app),
    };
    let became = match rollout.map(|rollout| &rollout.state) {
        Some(RolloutState::Superseded { by }) => format!("was superseded by {by}"),
        Some(_) => "succeeded".to_owned(),
        None => "has not ended yet".to_owned(),
    };
    if let Some(id) = receipt.rollout {
        text = format!("{text}; rollout {id} there {became}");
    }
    for DeliveryEvent { id, destination, state } in &receipt.delivered {
        let became = match state {
            DeliveryState::Delivered(report) if report.already => format!("{} had it", report.place),
            DeliveryState::Delivered(report) => format!("delivered to {}", report.place),
            DeliveryState::Skipped { .. } => "left out for a later release".to_owned(),
            DeliveryState::Failed { reason, .. } => format!("failed: {reason}"),
            DeliveryState::Retrying { reason, .. } => format!("tries again: {reason}"),
            DeliveryState::Cancelled { by } => format!("cancelled by `{by}`"),
            DeliveryState::Queued | DeliveryState::Running(_) | DeliveryState::Stranded => {
                format!("delivery {id} there has not ended yet")
            }
        };
        let part = format!("; {destination}: {became}");
        if text.len() + part.len() > ANSWER_BYTES_MAX {
            text.push_str("; …");
            break;
        }
        text.push_str(&part);
    }
    text
}
