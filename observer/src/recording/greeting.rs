//! What a service sends to a viewer before its stream: one line, by which observers of other versions understand each other.
//!
//! ```text
//! greeting = "observer-attach " ‖ protocol ‖ " " ‖ version of observer ‖ " " ‖ ("stream" | "refused " ‖ sentence) ‖ "\n"
//! ```
//!
//! After `stream` comes a recording that begins with a round of scans and goes on. The viewer sends nothing.

use std::io::{self, Read};

/// Raised when what follows the greeting changes, except for the format of recordings, which the stream itself has.
const PROTOCOL: &str = "1";
const NAME: &str = "observer-attach";
/// The longest line that is read.
const LONGEST: usize = 512;

/// Why a viewer gets no stream.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Something else listens there.
    #[error("what listens there is no observer serve --attach-socket")]
    NotAService,
    /// Another protocol.
    #[error("the service is observer {service} and speaks protocol {protocol}, this is observer {own} and speaks protocol {PROTOCOL}: use observer {service}", own = env!("CARGO_PKG_VERSION"))]
    Protocol {
        /// The version of the service.
        service: String,
        /// What it speaks.
        protocol: String,
    },
    /// The service gives its reason.
    #[error("the service refuses: {0}")]
    Refused(String),
    /// Nothing came.
    #[error("read the greeting of the service")]
    Io(#[from] io::Error),
}

/// The line that a stream follows.
#[must_use]
pub fn stream() -> String {
    line("stream")
}

/// The line that nothing follows.
#[must_use]
pub fn refusal(sentence: &str) -> String {
    line(&format!("refused {sentence}"))
}

fn line(rest: &str) -> String {
    format!("{NAME} {PROTOCOL} {} {rest}\n", env!("CARGO_PKG_VERSION"))
}

/// Reads the line, and nothing behind it.
pub fn read(source: &mut impl Read) -> Result<(), AttachError> {
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        match source.read_exact(&mut byte) {
            Ok(()) if byte == *b"\n" => break,
            Ok(()) if line.len() < LONGEST => line.extend(byte),
            Ok(()) => return Err(AttachError::NotAService),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(AttachError::NotAService),
            Err(error) => return Err(error.into()),
        }
    }
    let line = String::from_utf8_lossy(&line).escape_default().to_string();
    let mut words = line.splitn(4, ' ');
    let (name, protocol, service, rest) = (words.next(), words.next(), words.next(), words.next());
    let (Some(NAME), Some(protocol), Some(service), Some(rest)) = (name, protocol, service, rest) else {
        return Err(AttachError::NotAService);
    };
    if protocol != PROTOCOL {
        return Err(AttachError::Protocol { service: service.to_owned(), protocol: protocol.to_owned() });
    }
    match rest.strip_prefix("refused ") {
        Some(sentence) => Err(AttachError::Refused(sentence.to_owned())),
        None if rest == "stream" => Ok(()),
        None => Err(AttachError::NotAService),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_named_and_other_services_are_recognized() {
        let said = |bytes: &[u8]| read(&mut &*bytes).map_err(|error| error.to_string());
        assert_eq!(said(stream().as_bytes()), Ok(()));
        assert_eq!(said(refusal("too many").as_bytes()), Err("the service refuses: too many".to_owned()));
        assert_eq!(
            said(b"observer-attach 2 7.0.1 something new\n"),
            Err(format!(
                "the service is observer 7.0.1 and speaks protocol 2, this is observer {} and speaks protocol 1: use observer \
                 7.0.1",
                env!("CARGO_PKG_VERSION")
            ))
        );
        for other in [&b""[..], b"HTTP/1.1 400 Bad Request\r\n", b"observer-attach 1 0.1.0 more\n", &[b'x'; 1000]] {
            assert!(matches!(read(&mut &*other), Err(AttachError::NotAService)), "{other:?}");
        }
        let (mut bytes, mut after) = (&b"observer-attach 1 0.1.0 stream\nrest"[..], String::new());
        read(&mut bytes).unwrap();
        bytes.read_to_string(&mut after).unwrap();
        assert_eq!(after, "rest");
    }
}
