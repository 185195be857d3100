//! Whether what is written goes to systemd's journal, and how the journal is told what matters.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use tracing::Level;

/// Whether this is the journal: the socket that `$JOURNAL_STREAM` names. That the variable is set
/// says nothing, since children inherit it and may write elsewhere.
pub(super) fn is_read_by(out: &File, journal_stream: Option<OsString>) -> bool {
    let (Some(journal), Ok(out)) = (journal_stream, out.metadata()) else { return false };
    let name = format!("{}:{}", out.dev(), out.ino());
    out.file_type().is_socket() && journal == OsStr::new(&name)
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
    use std::io;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

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
