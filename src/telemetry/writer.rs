//! Lines on their way out. Who logs hands them over and goes on; a thread of their own writes
//! them, and it alone waits when nobody reads.
//!
//! What happened is kept: from some length of the queue on nothing more is claimed, so that less
//! happens. What is of use for debugging alone is left out when the queue is long, and so is
//! everything when it has grown beyond all measure. How much was left out is counted and said.

use std::io::{self, ErrorKind, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, mpsc};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{Level, Metadata, warn};
use tracing_subscriber::fmt::MakeWriter;

use crate::backlog::Backlog;

/// Bytes that are written at once.
const STEP: usize = 64 << 10;

/// How long nothing of the last lines may have been taken.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long it may take to say that they were not.
const LAST_COMPLAINT: Duration = Duration::from_millis(200);

/// Between two tries when the other end takes nothing at the moment.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Between two tries to begin anew.
const REOPEN_AGAIN: Duration = Duration::from_millis(500);

/// Where lines go.
pub(super) trait Sink: Write + Send + 'static {
    /// Begins anew after a failure; nothing where that cannot be.
    fn reopen(&mut self) -> Option<io::Result<()>> {
        None
    }
}

impl Sink for std::fs::File {}

/// Takes lines in, for whoever logs.
#[derive(Clone, Debug)]
pub(super) struct Writer(Arc<Queue>);

/// The lines of a log that was started. Dropping it waits a little for the last ones.
#[derive(Debug)]
#[must_use]
pub struct Lines {
    queue: Arc<Queue>,
}

/// The writing thread's end, which only a panic brings.
struct End(Backlog);

impl Drop for End {
    fn drop(&mut self) {
        self.0.break_off();
    }
}

#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    backlog: Backlog,
    limits: Limits,
}

/// Bytes that may wait ...
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// ... before lines for debugging are left out,
    debugging: usize,
    /// ... before nothing more is claimed,
    claims: usize,
    /// ... and before every line is left out.
    all: usize,
}

#[derive(Debug, Default)]
struct State {
    /// Whole lines.
    waiting: Vec<u8>,
    /// Bytes that the thread has taken and not yet written.
    taken: usize,
    /// Lines in all of these, the one that is being written among them.
    lines: u64,
    omitted: u64,
    omitted_since: Option<Instant>,
    /// Nothing can be written, at the moment or ever again.
    is_broken: bool,
}

impl State {
    fn bytes(&self) -> usize {
        self.waiting.len() + self.taken
    }

    /// Whether something is still to be written: lines, or that some were left out.
    fn owes(&self) -> bool {
        self.bytes() > 0 || (self.omitted > 0 && !self.is_broken)
    }

    fn omit(&mut self, lines: u64) {
        self.omitted += lines;
        self.omitted_since.get_or_insert_with(Instant::now);
    }
}

/// A writer to this, and what its owner holds. When `bytes` wait, nothing more is claimed.
pub(super) fn start(out: impl Sink, bytes: usize) -> io::Result<(Writer, Lines)> {
    let limits = Limits { debugging: bytes / 4, claims: bytes, all: bytes.saturating_mul(64) };
    let (state, changed) = (Mutex::default(), Condvar::new());
    let queue = Arc::new(Queue { state, changed, backlog: Backlog::default(), limits });
    let writing = queue.clone();
    thread::Builder::new().name("log".to_owned()).spawn(move || {
        let _end = End(writing.backlog.clone());
        writing.write(out);
    })?;
    Ok((Writer(queue.clone()), Lines { queue }))
}

impl Lines {
    /// Whether they are behind.
    pub fn backlog(&self) -> Backlog {
        self.queue.backlog.clone()
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        while state.owes() {
            let left = state.bytes();
            let stands_still = |state: &mut State| state.owes() && state.bytes() == left;
            let waited = self.queue.changed.wait_timeout_while(state, LAST_WORDS, stands_still);
            let (waited, end) = waited.expect("nothing panics while holding this lock");
            state = waited;
            if end.timed_out() {
                // Who has not read by then will not.
                let lines = state.lines;
                drop(state);
                say_in_time(format!("nobody took the last {lines} lines of the log"));
                return;
            }
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while holding this lock")
    }

    fn push(&self, line: &[u8], limit: usize) {
        let mut state = self.lock();
        if state.bytes() > limit {
            state.omit(1);
            self.backlog.drop_lines(1);
            return;
        }
        let was_empty = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        state.lines += count(line);
        self.backlog.set(state.bytes() > self.limits.claims);
        if was_empty {
            self.changed.notify_all();
        }
    }

    /// Writes what comes, for ever.
    fn write(&self, mut out: impl Sink) {
        // The last line was cut short, when its end could not be written.
        let (mut is_cut, mut is_whole) = (false, true);
        loop {
            let lines = self.take();
            let mut left = &lines[..];
            while !left.is_empty() {
                let step = &left[..left.len().min(STEP)];
                let written = match write_step(&mut out, step, &mut is_cut) {
                    Ok(written) if written > 0 => {
                        is_whole = step[written - 1] == b'\n';
                        self.wrote(&step[..written]);
                        written
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => 0,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        thread::park_timeout(LOOK_AGAIN);
                        0
                    }
                    failure => match out.reopen() {
                        Some(Ok(())) => {
                            left = self.rewind(&lines, left.len());
                            0
                        }
                        // As if nobody read: lines are kept, and claims pause.
                        Some(Err(_)) => {
                            thread::park_timeout(REOPEN_AGAIN);
                            0
                        }
                        None => {
                            is_cut |= !is_whole;
                            self.give_up(left, failure.err());
                            left.len()
                        }
                    },
                };
                left = &left[written..];
            }
            self.confess();
        }
    }

    /// What is left of the lines, with all of its first one.
    fn rewind<'a>(&self, lines: &'a [u8], left: usize) -> &'a [u8] {
        let at = lines.len() - left;
        let begins = lines[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.lock().taken += at - begins;
        &lines[begins..]
    }

    fn take(&self) -> Vec<u8> {
        let waiting = |state: &mut State| state.waiting.is_empty();
        let state = self.changed.wait_while(self.lock(), waiting);
        let mut state = state.expect("nothing panics while holding this lock");
        state.taken = state.waiting.len();
        mem::take(&mut state.waiting)
    }

    fn wrote(&self, bytes: &[u8]) {
        let mut state = self.lock();
        state.is_broken = false;
        self.is_done_with(bytes, &mut state);
    }

    /// These will not be written.
    fn give_up(&self, bytes: &[u8], error: Option<io::Error>) {
        let lines = count(bytes);
        self.backlog.drop_lines(lines);
        let mut state = self.lock();
        state.omit(lines);
        let was_broken = mem::replace(&mut state.is_broken, true);
        self.is_done_with(bytes, &mut state);
        drop(state);
        if !was_broken {
            complain(error);
        }
    }

    fn is_done_with(&self, bytes: &[u8], state: &mut State) {
        state.taken -= bytes.len();
        state.lines -= count(bytes);
        self.backlog.set(state.bytes() > self.limits.claims);
        self.changed.notify_all();
    }

    /// Says what was left out, once lines are taken again.
    fn confess(&self) {
        let state = self.lock();
        let Some(since) = state.omitted_since.filter(|_| !state.is_broken) else { return };
        let count = state.omitted;
        drop(state);
        let since_s = since.elapsed().as_secs_f64();
        warn!(event = "log.dropped", count, since_s, "nobody took these lines in time");
        // Until it is among the lines it is owed.
        let mut state = self.lock();
        state.omitted -= count;
        state.omitted_since = (state.omitted > 0).then(Instant::now);
        self.changed.notify_all();
    }
}

/// Writes some of the lines. One that was cut short ends before them.
fn write_step(out: &mut impl Write, step: &[u8], is_cut: &mut bool) -> io::Result<usize> {
    if *is_cut {
        out.write_all(b"\n")?;
        *is_cut = false;
    }
    out.write(step)
}

/// Says where it still can that lines cannot be written.
fn complain(error: Option<io::Error>) {
    let why = error.map_or_else(|| "it takes nothing".to_owned(), |error| error.to_string());
    say(&format!("the log cannot be written: {why}; burstd goes on without"));
}

fn say(words: &str) {
    // When this does not work either, there is nobody to tell.
    drop(writeln!(io::stderr(), "burstd: {words}"));
}

/// Says it, unless that takes too long: standard error may be stalled, too.
fn say_in_time(words: String) {
    let (said, is_said) = mpsc::channel::<()>();
    let says = move || {
        say(&words);
        drop(said);
    };
    if thread::Builder::new().spawn(says).is_ok() {
        // It ends when it is said, by the sender's end.
        is_said.recv_timeout(LAST_COMPLAINT).ok();
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Takes one line in.
#[derive(Debug)]
pub(super) struct Line<'a> {
    queue: &'a Queue,
    limit: usize,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.queue.push(line, self.limit);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { queue: &self.0, limit: self.0.limits.all }
    }

    fn make_writer_for(&'a self, about: &Metadata<'_>) -> Line<'a> {
        match *about.level() > Level::INFO {
            true => Line { queue: &self.0, limit: self.0.limits.debugging },
            false => self.make_writer(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read as _;
    use std::os::fd::OwnedFd;

    use super::*;

    const MB: usize = 1 << 20;

    /// A pipe that nobody reads yet, and a log that is written to it.
    fn pipe() -> (io::PipeReader, Writer, Lines) {
        let (reader, writer) = io::pipe().expect("a pipe");
        let (writer, lines) = start(File::from(OwnedFd::from(writer)), MB).expect("a thread");
        (reader, writer, lines)
    }

    fn push(writer: &Writer, bytes: usize) {
        let mut line = vec![b'x'; bytes - 1];
        line.push(b'\n');
        writer.make_writer().write_all(&line).expect("it is taken");
    }

    #[test]
    fn lines_come_out_as_they_came_in() {
        let (mut reader, writer, lines) = pipe();
        for number in 0..100 {
            writeln!(writer.make_writer(), "line {number}").expect("it is taken");
        }
        drop(lines);
        let mut read = vec![0; 790];
        reader.read_exact(&mut read).expect("it is all there");
        let read = String::from_utf8(read).expect("it is text");
        assert!(read.starts_with("line 0\nline 1\n") && read.ends_with("line 99\n"), "{read}");
    }

    #[test]
    fn while_nobody_reads_what_happened_is_kept_and_what_is_for_debugging_is_not() {
        let (mut reader, writer, lines) = pipe();
        for _ in 0..5 {
            push(&writer, MB);
        }
        assert!(lines.backlog().is_long(), "nothing more should happen");
        writer.0.push(b"for debugging\n", writer.0.limits.debugging);
        assert_eq!(writer.0.lock().omitted, 1);
        push(&writer, 100);
        let mut read = vec![0; 5 * MB + 100];
        reader.read_exact(&mut read).expect("every line that was kept");
        assert_eq!(count(&read), 6);
        let state = writer.0.lock();
        let is_busy = |state: &mut State| state.bytes() > 0;
        drop(writer.0.changed.wait_while(state, is_busy).expect("no panic"));
        assert!(!lines.backlog().is_long());
    }

    #[test]
    fn what_was_left_out_is_said_before_the_end() {
        for _ in 0..300 {
            let (mut reader, writer, lines) = pipe();
            push(&writer, 1000);
            writer.0.push(b"for debugging\n", 0);
            let was_late = writer.0.lock().omitted == 1;
            let reads = thread::spawn(move || reader.read_exact(&mut [0; 1000]).map(|()| reader));
            drop(lines);
            assert_eq!(writer.0.lock().omitted, 0, "was left out: {was_late}");
            drop(reads.join().expect("no panic").expect("all is written"));
        }
    }

    #[test]
    fn beyond_all_measure_lines_are_left_out_and_counted() {
        let (_reader, writer, _lines) = pipe();
        for _ in 0..70 {
            push(&writer, MB);
        }
        let state = writer.0.lock();
        assert!(state.bytes() <= 65 * MB, "{}", state.bytes());
        assert!(state.omitted >= 4, "{}", state.omitted);
    }

    /// A disk with so much room.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Disk {
        fn free(&self, bytes: usize) {
            self.0.lock().expect("no panic").0 = bytes;
        }

        fn has(&self) -> String {
            String::from_utf8(self.0.lock().expect("no panic").1.clone()).expect("it is text")
        }
    }

    impl Sink for Disk {}

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().expect("no panic");
            if disk.0 == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            let some = bytes.len().min(disk.0);
            disk.0 -= some;
            disk.1.extend_from_slice(&bytes[..some]);
            Ok(some)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_a_full_disk_has_cut_ends_before_the_next_one() {
        let disk = Disk::default();
        let (writer, lines) = start(disk.clone(), MB).expect("a thread");
        let until_taken = || {
            let is_busy = |state: &mut State| state.bytes() > 0;
            drop(writer.0.changed.wait_while(writer.0.lock(), is_busy).expect("no panic"));
        };
        disk.free("first\nsec".len());
        writer.make_writer().write_all(b"first\nsecond\nthird\n").expect("it is taken");
        until_taken();
        writer.make_writer().write_all(b"fourth\n").expect("it is taken");
        until_taken();
        disk.free(MB);
        writer.make_writer().write_all(b"fifth\n").expect("it is taken");
        drop(lines);
        assert_eq!(disk.has(), "first\nsec\nfifth\n");
        assert_eq!(writer.0.backlog.dropped(), 3);
    }

    /// A stream that breaks in the middle of a line, and can be had again at the second try.
    struct Stream {
        disk: Disk,
        tries: u32,
    }

    impl Write for Stream {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.disk.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink for Stream {
        fn reopen(&mut self) -> Option<io::Result<()>> {
            self.tries += 1;
            if self.tries < 2 {
                return Some(Err(ErrorKind::ConnectionRefused.into()));
            }
            self.disk.0.lock().expect("no panic").1.push(b'|');
            self.disk.free(MB);
            Some(Ok(()))
        }
    }

    #[test]
    fn a_stream_that_breaks_and_can_be_had_again_loses_no_line() {
        let disk = Disk::default();
        disk.free("first\nsec".len());
        let stream = Stream { disk: disk.clone(), tries: 0 };
        let (writer, lines) = start(stream, MB).expect("a thread");
        writer.make_writer().write_all(b"first\nsecond\nthird\n").expect("it is taken");
        drop(lines);
        assert_eq!(disk.has(), "first\nsec|second\nthird\n");
        let state = writer.0.lock();
        assert_eq!((state.bytes(), state.lines, state.omitted), (0, 0, 0));
    }

    #[test]
    fn when_the_reader_has_gone_nobody_waits() {
        let (reader, writer, lines) = pipe();
        drop(reader);
        for _ in 0..20 {
            push(&writer, MB);
        }
        drop(lines);
        let state = writer.0.lock();
        assert_eq!((state.bytes(), state.omitted), (0, 20));
    }
}
