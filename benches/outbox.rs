//! What it costs to put updates into an outbox: how long one `append` takes, and how many updates a
//! second eight threads append together; then how fast one takes and settles them.
//!
//! ```sh
//! cargo bench --bench outbox
//! ```
//! The file is made in the folder that the environment variable `OUTBOX_FOLDER` names, or in the
//! one for temporary files. What "full" costs is what that disk takes to make sure of a write, which
//! is measured first: a thread that appends one by one waits for it each time.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use mixpanel_groups::outbox::Capacity;
use mixpanel_groups::{EncodedUpdate, Group, MemoryOutbox, Outbox};
use mixpanel_groups_sqlite::{Durability, SqliteOutbox};

const THREADS: usize = 8;
const TIME: Duration = Duration::from_secs(2);
const ROOM: Capacity = Capacity::new(usize::MAX, usize::MAX);

fn update(number: usize) -> EncodedUpdate {
    let properties = serde_json::json!({
        "name": format!("Company Number {number} Inc."),
        "plan": "enterprise",
        "industry": "Technology",
        "seats": number % 1000,
        "mrr": 12.5,
        "active": true,
    });
    let update = Group::new("company", number.to_string()).set(properties);
    EncodedUpdate::new(&update).unwrap().unwrap()
}

fn main() {
    let folder = std::env::var_os("OUTBOX_FOLDER").unwrap_or(std::env::temp_dir().into());
    let folder = tempfile::tempdir_in(folder).unwrap();
    println!(
        "an update is {} bytes; the disk makes sure of 4 KiB in {:.0?} (median)\n",
        update(0).as_json().len(),
        disk(folder.path()),
    );
    println!(
        "{:<8} {:>7} {:>6} {:>11} {:>11} {:>11}",
        "outbox", "threads", "batch", "median", "p99", "updates/s"
    );
    for (threads, batch) in [(1, 1), (THREADS, 1), (THREADS, 10), (THREADS, 100)] {
        let row = |name, outbox: &dyn Outbox| append(name, outbox, threads, batch);
        row("memory", &MemoryOutbox::new());
        for (name, synchronous) in [("normal", Durability::Normal), ("full", Durability::Full)] {
            let path = folder.path().join(format!("{name}-{threads}-{batch}.db"));
            row(name, &SqliteOutbox::open_with(path, synchronous).unwrap());
        }
    }
    println!();
    relay("memory", &MemoryOutbox::new());
    for (name, synchronous) in [("normal", Durability::Normal), ("full", Durability::Full)] {
        let path = folder.path().join(format!("{name}-relay.db"));
        relay(name, &SqliteOutbox::open_with(path, synchronous).unwrap());
    }
}

/// How long a write takes that has to reach the disk.
fn disk(folder: &Path) -> Duration {
    let mut file = File::create(folder.join("disk")).unwrap();
    let times = (0..100).map(|_| {
        let start = Instant::now();
        file.write_all(&[1; 4096]).unwrap();
        file.sync_data().unwrap();
        start.elapsed()
    });
    percentile(&mut times.collect::<Vec<_>>(), 50)
}

fn append(name: &str, outbox: &dyn Outbox, threads: usize, batch: usize) {
    let updates: Vec<_> = (0..batch).map(update).collect();
    let start = Instant::now();
    let mut times: Vec<Duration> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| append_for(TIME, outbox, &updates)))
            .collect();
        handles
            .into_iter()
            .flat_map(|handle| handle.join().unwrap())
            .collect()
    });
    println!(
        "{name:<8} {threads:>7} {batch:>6} {:>11.1?} {:>11.1?} {:>11.0}",
        percentile(&mut times, 50),
        percentile(&mut times, 99),
        (times.len() * batch) as f64 / start.elapsed().as_secs_f64(),
    );
}

fn append_for(time: Duration, outbox: &dyn Outbox, updates: &[EncodedUpdate]) -> Vec<Duration> {
    let end = Instant::now() + time;
    let mut times = Vec::new();
    loop {
        let start = Instant::now();
        if start > end {
            return times;
        }
        assert!(outbox.append(updates, ROOM).unwrap());
        times.push(start.elapsed());
    }
}

/// Takes and settles by 2,000, as a sender does.
fn relay(name: &str, outbox: &dyn Outbox) {
    const UPDATES: usize = 100_000;
    let updates: Vec<_> = (0..UPDATES).map(update).collect();
    assert!(outbox.append(&updates, ROOM).unwrap());
    let (mut take, mut settle, mut count) = (Duration::ZERO, Duration::ZERO, 0);
    while count < UPDATES {
        let start = Instant::now();
        let taken = outbox.take(2_000).unwrap();
        take += start.elapsed();
        let ids: Vec<_> = taken.iter().map(|waiting| waiting.id).collect();
        let start = Instant::now();
        outbox.settle(&ids, &[]).unwrap();
        settle += start.elapsed();
        count += taken.len();
    }
    println!(
        "{name:<8} take of 2,000 {:>8.1?}, settle {:>8.1?}: {:>9.0} updates/s",
        take / 50,
        settle / 50,
        UPDATES as f64 / (take + settle).as_secs_f64(),
    );
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100]
}
