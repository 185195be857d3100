//! What a process of this machine uses, as its kernel counts it.

use std::fs;
use std::io;
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
    fn this_process_uses_cpu_and_memory() {
        let resident = resident_kb("self").expect("it can be read");
        let peak = peak_resident_kb("self").expect("it can be read");
        assert!(resident > 100 && peak >= resident, "{resident} KB, {peak} KB at most");
        assert!(cpu("self").expect("it can be read") > Duration::ZERO);
    }
}
