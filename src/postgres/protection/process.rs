//! Whether a process that left a word in the repository is gone: then nobody needs to wait for it.

use serde::{Deserialize, Serialize};

/// A process, told apart from all others on all machines. What is not known is empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    pub host: String,
    /// Changes with every start of the machine (Linux, `random/boot_id`).
    pub boot_id: String,
    /// Process numbers mean something only within one (`/proc/self/ns/pid`).
    pub pid_namespace: String,
    pub pid: u32,
    /// When the process began, in the kernel's ticks since boot: numbers are used again (proc(5), `stat`, field 22).
    pub pid_start: String,
}

impl ProcessIdentity {
    /// This process.
    pub fn own() -> Self {
        let read = |path: &str| {
            std::fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_string()
        };
        let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let pid = std::process::id();
        Self {
            host: read("/proc/sys/kernel/hostname"),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            pid_namespace: namespace.display().to_string(),
            pid,
            pid_start: start_of(pid).unwrap_or_default(),
        }
    }

    /// Whether it is one of this machine since its last start, so that its number and its times mean something here.
    pub fn is_here(&self) -> bool {
        let own = Self::own();
        let comparable = [&own.boot_id, &own.pid_namespace, &own.pid_start]
            .iter()
            .all(|part| !part.is_empty());
        let here = (&self.host, &self.boot_id, &self.pid_namespace)
            == (&own.host, &own.boot_id, &own.pid_namespace);
        comparable && here
    }

    /// Whether it is proven that the process has ended. False also means: not known.
    pub fn is_gone(&self) -> bool {
        self.is_here() && start_of(self.pid).as_ref() != Some(&self.pid_start)
    }
}

/// When the process of that number began; `None` when there is none.
fn start_of(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything; the 22nd is the 20th after it.
    Some(
        stat.rsplit_once(')')?
            .1
            .split_whitespace()
            .nth(19)?
            .to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_gone_only_when_that_is_proven() {
        let own = ProcessIdentity::own();
        assert!(!own.is_gone());
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        let pid = child.id();
        let other = ProcessIdentity {
            pid,
            pid_start: start_of(pid).unwrap(),
            ..own.clone()
        };
        assert!(!other.is_gone());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(other.is_gone());
        let used_again = ProcessIdentity {
            pid_start: "1".into(),
            ..own.clone()
        };
        assert!(used_again.is_gone());
        for elsewhere in [
            ProcessIdentity {
                host: "other".into(),
                ..other.clone()
            },
            ProcessIdentity {
                boot_id: "other".into(),
                ..other.clone()
            },
            ProcessIdentity {
                pid_namespace: "other".into(),
                ..other.clone()
            },
        ] {
            assert!(!elsewhere.is_gone() && !elsewhere.is_here());
        }
    }
}
