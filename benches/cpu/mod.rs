//! How long something takes, by the clock and of this process's CPU time.

use std::ops::Div;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::Pid;

#[derive(Clone, Copy)]
pub struct Time {
    pub wall: Duration,
    /// Of all threads, in the program and in the kernel.
    pub cpu: Duration,
}

impl Time {
    pub const MAX: Self = Self {
        wall: Duration::MAX,
        cpu: Duration::MAX,
    };

    /// The time of one run.
    pub fn of(run: &mut dyn FnMut()) -> Self {
        let (started, cpu) = (Instant::now(), cpu_time());
        run();
        Self {
            wall: started.elapsed(),
            cpu: cpu_time() - cpu,
        }
    }

    /// The lesser of each.
    pub fn min(self, other: Self) -> Self {
        Self {
            wall: self.wall.min(other.wall),
            cpu: self.cpu.min(other.cpu),
        }
    }
}

impl Div<u32> for Time {
    type Output = Self;

    fn div(self, parts: u32) -> Self {
        Self {
            wall: self.wall / parts,
            cpu: self.cpu / parts,
        }
    }
}

fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("every process has a usage");
    let [user, system] = [usage.user_time(), usage.system_time()]
        .map(|time| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1_000));
    user + system
}

/// Keeps this thread, and all that it starts from now on, also processes, on one core.
pub fn pin() -> nix::Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this)?;
    let mut one = CpuSet::new();
    let first = (0..CpuSet::count()).find(|core| allowed.is_set(*core) == Ok(true));
    one.set(first.unwrap_or_default())?;
    sched_setaffinity(this, &one)
}
