//! What a process prints: line by line into burstd's log, and the last of it into the answer of the
//! invocation that it belongs to.

use std::collections::VecDeque;
use std::future::pending;
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;

use tokio::net::unix::pipe::Receiver;
use tracing::{info, warn};

/// So much of a function's log comes back with an answer
/// (docs.aws.amazon.com/lambda/latest/api/API_Invoke.html).
pub(super) const TAIL_BYTES: usize = 4096;

/// No more of one invocation's output is told in burstd's log; that has to carry the others', too.
const TOLD_BYTES: usize = 64 * 1024;

/// No more is read before an answer goes out: what comes later belongs to nobody.
const LAST_BYTES: usize = 1024 * 1024;

/// A line that is longer is told in parts.
const LINE_BYTES: usize = 2048;

const CHUNK_BYTES: usize = 16 * 1024;

/// The output of one environment.
#[derive(Debug)]
pub(super) struct Output {
    function: String,
    pipe: Receiver,
    is_closed: bool,
    /// Whose output it is; before the first invocation, nobody's.
    request_id: Option<String>,
    tail: VecDeque<u8>,
    /// A line that has not ended yet.
    line: Vec<u8>,
    told: usize,
    left_out: usize,
}

impl Output {
    pub(super) fn new(function: String, pipe: PipeReader) -> io::Result<Self> {
        Ok(Output {
            function,
            pipe: Receiver::from_owned_fd(OwnedFd::from(pipe))?,
            is_closed: false,
            request_id: None,
            tail: VecDeque::new(),
            line: Vec::new(),
            told: 0,
            left_out: 0,
        })
    }

    /// Waits for more, and takes it in.
    pub(super) async fn more(&mut self) {
        if self.is_closed {
            return pending().await;
        }
        if self.pipe.readable().await.is_ok() {
            let mut chunk = [0; CHUNK_BYTES];
            let read = self.pipe.try_read(&mut chunk);
            self.took(&chunk, read);
        }
    }

    /// From now on it belongs to this invocation.
    pub(super) fn begin(&mut self, request_id: &str) {
        self.drain();
        self.end_line();
        self.say_cut();
        self.request_id = Some(request_id.to_owned());
        self.tail.clear();
        self.told = 0;
    }

    /// The invocation has ended: the last of its output, as Lambda has it.
    pub(super) fn finish(&mut self, request_id: &str) -> String {
        self.drain();
        self.end_line();
        self.say_cut();
        let tail = self.tail.drain(..).collect::<Vec<_>>();
        let mut tail = String::from_utf8_lossy(&tail).into_owned();
        if !tail.is_empty() && !tail.ends_with('\n') {
            tail.push('\n');
        }
        format!(
            "START RequestId: {request_id} Version: $LATEST\n{tail}END RequestId: {request_id}\n"
        )
    }

    /// The process has ended: takes in what it left behind.
    pub(super) fn rest(&mut self) {
        self.drain();
        self.end_line();
        self.say_cut();
    }

    /// Says how much was left out, if anything was.
    fn say_cut(&mut self) {
        if self.left_out > 0 {
            warn!(
                event = "function.output_cut",
                function = self.function,
                request_id = self.request_id.as_deref(),
                bytes = self.left_out,
                "it printed more than can be told here"
            );
        }
        self.left_out = 0;
    }

    /// Takes in all that is there at this moment, whether the runtime has heard of it or not.
    fn drain(&mut self) {
        let (mut left, mut chunk) = (LAST_BYTES, [0; CHUNK_BYTES]);
        while left > 0 && !self.is_closed {
            let read = rustix::io::read(&self.pipe, &mut chunk).map_err(io::Error::from);
            match self.took(&chunk, read) {
                0 => return,
                read => left = left.saturating_sub(read),
            }
        }
    }

    /// Takes in what came of a reading; how much that was.
    fn took(&mut self, chunk: &[u8], read: io::Result<usize>) -> usize {
        match read {
            Ok(read @ 1..) => {
                self.take(&chunk[..read]);
                return read;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => self.is_closed = true,
        }
        0
    }

    fn take(&mut self, bytes: &[u8]) {
        self.tail.extend(bytes);
        let beyond = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..beyond);
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = TOLD_BYTES.saturating_sub(self.told);
            let told = &part[..part.len().min(room)];
            self.told += told.len();
            self.left_out += part.len() - told.len();
            self.line.extend(told);
            if self.line.ends_with(b"\n") {
                self.end_line();
            }
            while self.line.len() > LINE_BYTES {
                let rest = self.line.split_off(whole_characters(&self.line, LINE_BYTES));
                self.end_line();
                self.line = rest;
            }
        }
    }

    fn end_line(&mut self) {
        let lines = std::mem::take(&mut self.line);
        // Python's client keeps a traceback together by ending its lines like this.
        for line in lines.split(|byte| [b'\n', b'\r'].contains(byte)) {
            if !line.is_empty() {
                info!(
                    event = "function.output",
                    function = self.function,
                    request_id = self.request_id.as_deref(),
                    line = %String::from_utf8_lossy(line),
                    "it says"
                );
            }
        }
    }
}

/// The most bytes, up to `most`, that do not end within a character; if they are text at all.
fn whole_characters(line: &[u8], most: usize) -> usize {
    let is_within = |at: usize| line[at] & 0b1100_0000 == 0b1000_0000;
    (most - 3..=most).rev().find(|at| !is_within(*at)).unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn output() -> (Output, io::PipeWriter) {
        let (reader, writer) = io::pipe().expect("a pipe");
        (Output::new("f".to_owned(), reader).expect("it is a pipe"), writer)
    }

    #[tokio::test]
    async fn what_was_printed_before_the_end_belongs_to_the_invocation() {
        let (mut output, mut writer) = output();
        writer.write_all(b"starting up\n").expect("there is room");
        output.begin("r-1");
        writer.write_all(b"one\ntwo").expect("there is room");
        let log = output.finish("r-1");
        let expected = "START RequestId: r-1 Version: $LATEST\none\ntwo\nEND RequestId: r-1\n";
        assert_eq!(log, expected);
        output.begin("r-2");
        assert!(!output.finish("r-2").contains("two"), "each has its own");
    }

    #[test]
    fn a_long_line_is_cut_between_two_characters() {
        assert_eq!(whole_characters(b"0123456789", 5), 5);
        let text = "aä€😀z".as_bytes();
        // They begin at 0, 1, 3, 6 and 10.
        for (most, whole) in [(3, 3), (4, 3), (5, 3), (6, 6), (7, 6), (9, 6), (10, 10)] {
            assert_eq!(whole_characters(text, most), whole, "{most}");
        }
        assert_eq!(whole_characters(&[0x80; 9], 5), 5, "no text");
    }

    #[tokio::test]
    async fn of_a_flood_the_end_comes_back_and_the_log_is_spared() {
        let (mut output, mut writer) = output();
        output.begin("r");
        let flood = std::thread::spawn(move || {
            for number in 0..100_000 {
                writeln!(writer, "line {number}").expect("somebody reads");
            }
        });
        while !output.is_closed {
            output.more().await;
        }
        flood.join().expect("it does not panic");
        let log = output.finish("r");
        assert!(log.contains("line 99999\nEND") && log.len() < TAIL_BYTES + 200, "{}", log.len());
        assert!(output.told <= TOLD_BYTES);
    }
}
