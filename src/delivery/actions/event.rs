//! Events of deliveries and releases, as hooks and webhooks get them.

use std::ffi::OsString;

use serde::{Deserialize, Serialize};
use serde_json::json;

use ground::ids::{AppName, DestinationName, Label, ReleaseId, SpaceName, UserName};

/// Something that actions may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A destination shows the release.
    Delivered,
    /// A delivery failed for the first time; it may be tried again.
    Failed,
    /// A delivery ended without success.
    GivenUp,
    /// A delivery waits for a person: its destination is not configured any more. Told at each start of the proxy.
    Held,
    /// A rollback made an earlier release of an application current.
    RolledBack,
}

impl Event {
    /// Returns the event's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::GivenUp => "given_up",
            Self::Held => "held",
            Self::RolledBack => "rolled_back",
        }
    }
}

/// One event, with all that is said of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happened {
    /// The event.
    pub event: Event,
    /// Seconds since 1970.
    pub time: u64,
    /// The delivery, or the change of what is current. Equal wherever the event comes again.
    pub id: String,
    /// The space.
    pub space: SpaceName,
    /// The application.
    pub app: AppName,
    /// The release.
    pub release: ReleaseId,
    /// Its labels.
    pub labels: Vec<Label>,
    /// The release before it: what the destination showed, or what was current.
    pub previous: Option<ReleaseId>,
    /// The destination of a delivery.
    pub destination: Option<DestinationName>,
    /// The place there.
    pub place: Option<String>,
    /// Who asked for it.
    pub user: Option<UserName>,
    /// Why it failed, or was done.
    pub reason: Option<String>,
    /// The paths that differ from the release before.
    pub changed: Changed,
}

/// The paths in which two releases differ, escaped, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The paths; of too many, patterns that match them all, which end in `*`.
    pub paths: Vec<String>,
    /// True if the paths are patterns.
    pub truncated: bool,
}

impl Happened {
    /// Returns the id of what is sent: equal at each try, and another for each event of a delivery.
    pub fn message_id(&self) -> String {
        format!("{}-{}", self.id, self.event.as_str())
    }

    /// Returns the body of a webhook: JSON, the same bytes each time.
    pub fn body(&self) -> Vec<u8> {
        let subject = if self.destination.is_some() { "delivery" } else { "application" };
        let body = json!({
            "type": format!("{subject}.{}", self.event.as_str()),
            "timestamp": time_text(self.time),
            "data": {
                "delivery": self.id,
                "space": self.space,
                "app": self.app,
                "release": self.release.to_string(),
                "labels": self.labels,
                "previous": self.previous.map(|release| release.to_string()),
                "destination": self.destination,
                "place": self.place,
                "user": self.user,
                "result": self.event.as_str(),
                "reason": self.reason,
                "changed": self.changed.paths,
                "changed_truncated": self.changed.truncated,
            },
        });
        serde_json::to_vec(&body).expect("plain words and numbers")
    }

    /// Returns the variables of a hook.
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        let labels: Vec<&str> = self.labels.iter().map(Label::as_str).collect();
        let previous = self.previous.map(|release| release.to_string());
        let values: [(&str, String); 12] = [
            ("WHIT_EVENT", self.event.as_str().to_owned()),
            ("WHIT_APP", self.app.to_string()),
            ("WHIT_RELEASE", self.release.to_string()),
            ("WHIT_LABEL", labels.first().copied().unwrap_or_default().to_owned()),
            ("WHIT_LABELS", labels.join(" ")),
            ("WHIT_PREVIOUS", previous.unwrap_or_default()),
            ("WHIT_DELIVERY", self.id.clone()),
            ("WHIT_SPACE", self.space.to_string()),
            ("WHIT_DESTINATION", self.destination.as_ref().map(ToString::to_string).unwrap_or_default()),
            ("WHIT_PLACE", self.place.clone().unwrap_or_default()),
            ("WHIT_USER", self.user.as_ref().map(ToString::to_string).unwrap_or_default()),
            ("WHIT_REASON", self.reason.clone().unwrap_or_default()),
        ];
        // A zero byte would keep the hook from starting.
        values.into_iter().map(|(name, value)| (name, value.replace('\0', "").into())).collect()
    }
}

/// A time for machines and people, RFC 3339.
fn time_text(seconds: u64) -> String {
    /// The last second of the year 9999, beyond which RFC 3339 has no text.
    const LAST: u64 = 253_402_300_799;
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds.min(LAST));
    humantime::format_rfc3339_seconds(time).to_string()
}
