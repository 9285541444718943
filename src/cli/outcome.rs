//! The outcomes of a rollout that a command asked for, with an exit code for each: TARGETS, "Outcomes".

use ground::faults::Fault;

/// Why a command that followed a rollout did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Members that had the release went back, or will.
    RolledBack,
    /// Too many failed; who has the release keeps it.
    Failed,
    /// A newer rollout took its place.
    Superseded,
    /// A person ended it.
    Aborted,
    /// It, or one that it waits for, begins no further batch until a person says so.
    Held,
    /// The command was interrupted or lost the proxy, which goes on with it.
    UnderWay(Fault),
}

impl Outcome {
    /// Returns the exit code: one of its own where the rollout came to something, else that of the fault.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::RolledBack => 9,
            Self::Failed => 10,
            Self::Superseded => 11,
            Self::Aborted => 12,
            Self::Held => 13,
            Self::UnderWay(fault) => fault.exit_code(),
        }
    }

    /// Returns the fault: another try alone helps only where the rollout goes on.
    pub fn fault(self) -> Fault {
        if let Self::UnderWay(fault) = self { fault } else { Fault::Input }
    }

    /// Returns its name, as JSON has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RolledBack => "rolled_back",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
            Self::Aborted => "aborted",
            Self::Held => "held",
            Self::UnderWay(_) => "under_way",
        }
    }
}
