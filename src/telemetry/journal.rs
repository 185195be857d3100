//! Whether what is written goes to systemd's journal, and how the journal is told what matters.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;

use tracing::Level;

use super::writer::Sink;

/// Where a process that has lost its stream gets another (sd_journal_stream_fd(3)).
const STREAMS: &str = "/run/systemd/journal/stdout";

/// Whether this is the journal: the socket that `$JOURNAL_STREAM` names. That the variable is set
/// says nothing, since children inherit it and may write elsewhere.
pub(super) fn is_read_by(out: &File, journal_stream: Option<OsString>) -> bool {
    let (Some(journal), Ok(out)) = (journal_stream, out.metadata()) else { return false };
    let name = format!("{}:{}", out.dev(), out.ino());
    out.file_type().is_socket() && journal == OsStr::new(&name)
}

/// A stream to the journal. It breaks when journald is stopped, and nobody gives the process
/// another one.
#[derive(Debug)]
pub(super) struct Journal(pub(super) File);

impl Write for Journal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Sink for Journal {
    /// The unit, and the fields that it adds, are found by the process's control group.
    fn reopen(&mut self) -> Option<io::Result<()>> {
        let connect = || -> io::Result<File> {
            let mut stream = UnixStream::connect(STREAMS)?;
            // Identifier, unit, priority of lines without one, prefixes are read; not forwarded.
            stream.write_all(b"burstd\n\n6\n1\n0\n0\n0\n")?;
            Ok(File::from(OwnedFd::from(stream)))
        };
        Some(connect().map(|stream| self.0 = stream))
    }
}

/// The priority of a line, as the journal reads it and takes it away.
pub(super) fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(out: &File) -> OsString {
        let metadata = out.metadata().expect("it is open");
        format!("{}:{}", metadata.dev(), metadata.ino()).into()
    }

    fn socket() -> File {
        let (socket, _) = UnixStream::pair().expect("two sockets");
        File::from(OwnedFd::from(socket))
    }

    #[test]
    fn it_is_the_journal_when_journal_stream_names_this_very_socket() {
        let (journal, other) = (socket(), socket());
        assert!(is_read_by(&journal, Some(name(&journal))));
        assert!(!is_read_by(&other, Some(name(&journal))), "another socket");
        assert!(!is_read_by(&journal, None), "no journal");
        for text in ["", ":", "8:", "8:x"] {
            assert!(!is_read_by(&journal, Some(text.into())), "{text:?}");
        }
    }

    #[test]
    fn neither_a_file_nor_a_pipe_is_the_journal_whatever_is_said() {
        let pipe = File::from(OwnedFd::from(io::pipe().expect("a pipe").1));
        let null = File::options().write(true).open("/dev/null").expect("it is there");
        for out in [tempfile::tempfile().expect("a file"), pipe, null] {
            assert!(!is_read_by(&out, Some(name(&out))), "{out:?}");
        }
    }
}
