//! Documents in the engine process: rendered from a frame, into sealed memory files that the HTTP process can only read.

use std::{
    io::{self, Write as _},
    os::fd::OwnedFd,
    time::Instant,
};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::{
    bounds,
    channel::{DocumentKind, Unavailable},
    page::{self, ServeState},
};
#[cfg(feature = "otlp")]
use crate::host::machine::{self, Machine};
use crate::{
    export::{
        self,
        openmetrics::{self, Format},
        series::{Bounds, Kept},
    },
    frame::Frame,
};

const KINDS: usize = DocumentKind::ALL.len();

/// A document that the HTTP process can be given.
#[derive(Debug)]
pub(super) struct Rendered {
    at: Instant,
    pub(super) outcome: Result<(OwnedFd, u64), Unavailable>,
}

/// The newest document of each kind, and what has to be made.
#[derive(Debug)]
pub(super) struct Documents {
    bounds: Bounds,
    kept: Kept,
    newest: [Option<Rendered>; KINDS],
    wanted: [bool; KINDS],
    #[cfg(feature = "otlp")]
    otlp: export::otlp::Exporter,
}

impl Documents {
    /// `addresses` are where observer listens.
    #[cfg_attr(not(feature = "otlp"), expect(unused_variables, reason = "only exports name the instance"))]
    pub(super) fn new(bounds: Bounds, addresses: &str) -> Self {
        Self {
            bounds,
            kept: Kept::default(),
            newest: [const { None }; KINDS],
            wanted: [false; KINDS],
            #[cfg(feature = "otlp")]
            otlp: export::otlp::Exporter::new(Machine::this(), &machine::place(addresses)),
        }
    }

    /// The newest document, unless it is too old: then the next frame makes another.
    pub(super) fn fresh(&self, kind: DocumentKind) -> Option<&Rendered> {
        self.newest[kind as usize].as_ref().filter(|rendered| rendered.at.elapsed() < bounds::FRESH)
    }

    /// Asks for a document of the next frame.
    pub(super) fn want(&mut self, kind: DocumentKind) {
        self.wanted[kind as usize] = true;
    }

    /// Makes what is wanted, and calls `made` with each.
    pub(super) fn render(
        &mut self,
        frame: &Frame,
        state: &ServeState<'_>,
        mut made: impl FnMut(DocumentKind, &Rendered),
    ) {
        for kind in DocumentKind::ALL {
            if std::mem::take(&mut self.wanted[kind as usize]) {
                let outcome = self.document(kind, frame, state);
                made(kind, self.newest[kind as usize].insert(Rendered { at: Instant::now(), outcome }));
            }
        }
    }

    fn document(
        &mut self,
        kind: DocumentKind,
        frame: &Frame,
        state: &ServeState<'_>,
    ) -> Result<(OwnedFd, u64), Unavailable> {
        let bytes = match kind {
            DocumentKind::OpenMetrics => openmetrics::render(frame, Format::OpenMetrics, self.bounds, &mut self.kept),
            DocumentKind::MetricsText => openmetrics::render(frame, Format::Text, self.bounds, &mut self.kept),
            DocumentKind::Snapshot => export::json(frame).map_err(failed)?,
            DocumentKind::State => page::render(frame, state).into_bytes(),
            #[cfg(feature = "otlp")]
            DocumentKind::Otlp => self.otlp.render(frame, self.bounds),
            #[cfg(not(feature = "otlp"))]
            DocumentKind::Otlp => return Err(Unavailable::Failed),
        };
        let length = bytes.len() as u64;
        if length > bounds::DOCUMENT_BYTES {
            tracing::warn!(?kind, length, "a document is too large to be served");
            return Err(Unavailable::TooLarge);
        }
        Ok((sealed(&bytes).map_err(failed)?, length))
    }
}

fn failed(error: impl std::fmt::Display) -> Unavailable {
    tracing::error!(%error, "make a document");
    Unavailable::Failed
}

/// A memory file that nobody can change.
fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Before 6.3 there is no NOEXEC_SEAL.
    let file = memfd_create("observer-document", flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| memfd_create("observer-document", flags))?;
    let mut file = std::fs::File::from(file);
    file.write_all(bytes)?;
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_can_change_a_document() {
        let fd = sealed(b"a document").unwrap();
        let refused = rustix::io::pwrite(&fd, b"another", 0).unwrap_err();
        assert_eq!(refused, rustix::io::Errno::PERM);
        assert_eq!(rustix::fs::ftruncate(&fd, 0).unwrap_err(), rustix::io::Errno::PERM);
        let mut bytes = [0; 32];
        let got = rustix::io::pread(&fd, &mut bytes, 0).unwrap();
        assert_eq!(&bytes[..got], b"a document");
    }
}
