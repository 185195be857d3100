//! What a process of this machine uses, as its kernel counts it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// CPU time so far of a process, by its number or `self`: of the threads that live.
///
/// # Errors
///
/// When there is no such process, or it is not ours to look at.
pub fn cpu(process: &str) -> io::Result<Duration> {
    let mut total = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        // The first figure is nanoseconds on a CPU. A thread may have ended meanwhile.
        let Ok(stat) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        let nanos = stat.split(' ').next().and_then(|nanos| nanos.parse().ok());
        total += Duration::from_nanos(nanos.unwrap_or_default());
    }
    Ok(total)
}

/// Memory of a process that is resident now, in kilobytes.
///
/// # Errors
///
/// When there is no such process, or it is not ours to look at.
pub fn resident_kb(process: &str) -> io::Result<u64> {
    field(process, "VmRSS:")
}

/// Memory of a process that was resident at most, in kilobytes.
///
/// # Errors
///
/// When there is no such process, or it is not ours to look at.
pub fn peak_resident_kb(process: &str) -> io::Result<u64> {
    field(process, "VmHWM:")
}

/// File descriptors that a process has open.
///
/// # Errors
///
/// When there is no such process, or it is not ours to look at.
pub fn descriptors(process: &str) -> io::Result<u64> {
    let open = fs::read_dir(format!("/proc/{process}/fd"))?.count() as u64;
    // The one that was needed to look is closed again.
    Ok(open.saturating_sub(u64::from(process == "self")))
}

/// Memory that this process's control groups allow it, in bytes; nothing when that is not limited.
pub fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().flat_map(limit_files).filter_map(|file| limit(&file)).min()
}

/// Where the limits of a control group and of those around it stand, for a line of
/// /proc/self/cgroup (cgroups(7)): of version 2, and of the memory controller of version 1.
fn limit_files(group: &str) -> Vec<PathBuf> {
    let mut parts = group.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { return Vec::new() };
    let roots: &[&str] = match controllers {
        "" => &["/sys/fs/cgroup", "/sys/fs/cgroup/unified"],
        _ if controllers.split(',').any(|name| name == "memory") => &["/sys/fs/cgroup/memory"],
        _ => &[],
    };
    // From `high` on the kernel slows the process down until it stands still.
    let files: &[&str] = match controllers {
        "" => &["memory.high", "memory.max"],
        _ => &["memory.limit_in_bytes"],
    };
    let within = Path::new(path.trim_start_matches('/'));
    let groups =
        roots.iter().flat_map(|root| within.ancestors().map(|group| Path::new(root).join(group)));
    groups.flat_map(|group| files.iter().map(move |file| group.join(file))).collect()
}

/// A limit; version 1 says a number beyond any machine for none, version 2 a word.
fn limit(file: &Path) -> Option<u64> {
    let bytes = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (bytes < 1 << 60).then_some(bytes)
}

fn field(process: &str, name: &str) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    let kilobytes = line.split_whitespace().nth(1).and_then(|number| number.parse().ok());
    kilobytes.ok_or_else(|| io::Error::other(format!("no {name} in /proc/{process}/status")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_both_versions_of_control_groups_are_looked_for_up_to_the_root() {
        let files = |line| {
            let files = limit_files(line).into_iter();
            files.map(|file| file.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            files("0::/a.slice/b.service")[..6],
            [
                "/sys/fs/cgroup/a.slice/b.service/memory.high",
                "/sys/fs/cgroup/a.slice/b.service/memory.max",
                "/sys/fs/cgroup/a.slice/memory.high",
                "/sys/fs/cgroup/a.slice/memory.max",
                "/sys/fs/cgroup/memory.high",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        assert_eq!(
            files("4:memory:/a"),
            [
                "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes"
            ]
        );
        assert_eq!(files("1:cpu,cpuacct:/a"), [""; 0]);
        assert_eq!(files("nonsense"), [""; 0]);
    }

    #[test]
    fn a_limit_is_a_number_that_a_machine_can_have() {
        let directory = tempfile::tempdir().expect("a directory");
        for (text, expected) in [
            ("536870912\n", Some(536_870_912)),
            ("max\n", None),
            ("9223372036854771712\n", None),
            ("", None),
        ] {
            let file = directory.path().join("limit");
            fs::write(&file, text).expect("it is written");
            assert_eq!(limit(&file), expected, "{text:?}");
        }
        assert_eq!(limit(&directory.path().join("absent")), None);
    }

    #[test]
    fn this_process_uses_cpu_and_memory() {
        let resident = resident_kb("self").expect("it can be read");
        let peak = peak_resident_kb("self").expect("it can be read");
        assert!(resident > 100 && peak >= resident, "{resident} KB, {peak} KB at most");
        assert!(descriptors("self").expect("they can be counted") >= 3);
        assert!(cpu("self").expect("it can be read") > Duration::ZERO);
    }
}
