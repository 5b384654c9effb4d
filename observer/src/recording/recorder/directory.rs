//! The directory of a recorder. Whoever opens it may have more rights than later: from then on everything goes through its
//! descriptor, and all that is made belongs to the later user.

use std::{
    collections::BTreeSet,
    fs::{DirBuilder, File},
    io::{self, ErrorKind},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::DirBuilderExt as _,
    },
    path::Path,
};

use anyhow::{Context as _, anyhow, bail, ensure};
use rustix::{
    fs::{
        AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, fchown, flock, fstat, fsync, linkat, mkdirat, open,
        openat, renameat, statat, unlinkat,
    },
    io::Errno,
    process::geteuid,
};

use super::name::{INCIDENTS, IncidentName, SegmentName};
use crate::{errno, host::privileges::User};

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const OF_OWNER: Mode = Mode::RWXU;

/// An open directory that no other recorder writes to.
#[derive(Debug)]
pub(super) struct Directory {
    folder: OwnedFd,
    incidents: OwnedFd,
    /// Whom files are for that root makes.
    owner: Option<User>,
}

/// A segment that is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) name: SegmentName,
    pub(super) bytes: u64,
}

impl Directory {
    /// Opens it, or makes it (mode 0700), for `owner` where root opens it and will be that user. Fails if another recorder has
    /// it, or if something else is in it.
    pub(super) fn open(path: &Path, owner: Option<User>) -> anyhow::Result<Self> {
        let name = errno::printable(path);
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("make the directory {name}"));
            }
            _ => {}
        }
        let folder = open(path, FOLDER, Mode::empty()).map_err(|error| match error {
            Errno::NOTDIR | Errno::LOOP => {
                anyhow!("{name} is no directory: a recorder writes to a directory of its own, choose another name")
            }
            error => anyhow!(io::Error::from(error)).context(format!("open the directory {name}")),
        })?;
        flock(&folder, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            Errno::WOULDBLOCK => {
                anyhow!("another recorder writes to {name}: choose another directory, or end that one")
            }
            error => anyhow!(io::Error::from(error)).context(format!("lock the directory {name}")),
        })?;
        if let Some(other) = other_file(folder.as_fd()).with_context(|| format!("list the directory {name}"))? {
            bail!("{name} has {other}, which is of no recorder: choose an empty directory, or a new name");
        }
        match mkdirat(&folder, INCIDENTS, OF_OWNER) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(io::Error::from(error)).with_context(|| format!("make {name}/{INCIDENTS}")),
        }
        let incidents = openat(&folder, INCIDENTS, FOLDER, Mode::empty()).map_err(io::Error::from);
        let incidents = incidents.with_context(|| format!("open {name}/{INCIDENTS}"))?;
        let directory = Self { folder, incidents, owner: owner.filter(|_| geteuid().is_root()) };
        directory.give_away(&name)?;
        Ok(directory)
    }

    /// Gives what root has made to the later user. Nobody else may have put anything in it: a link there could lead to any file.
    fn give_away(&self, name: &str) -> anyhow::Result<()> {
        let Some(owner) = self.owner else { return Ok(()) };
        let found = fstat(&self.folder).map_err(io::Error::from).with_context(|| format!("look at {name}"))?;
        let user = owner.uid();
        if found.st_uid == user.as_raw() {
            return Ok(());
        }
        ensure!(
            found.st_uid == 0 && found.st_mode & 0o022 == 0,
            "{name} belongs to user {}, mode {:o}: observer will write to it as user {}, chown it to that one or choose a new name",
            found.st_uid,
            found.st_mode & 0o7777,
            user.as_raw()
        );
        let give = || -> io::Result<()> {
            for folder in [&self.folder, &self.incidents] {
                for file in files(folder.as_fd())? {
                    self.give(&openat(
                        folder,
                        &file,
                        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                        Mode::empty(),
                    )?)?;
                }
            }
            for incident in self.incident_names()? {
                let folder = self.incident_folder(&incident)?;
                for file in files(folder.as_fd())? {
                    self.give(&openat(
                        &folder,
                        &file,
                        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                        Mode::empty(),
                    )?)?;
                }
            }
            self.give(&self.folder)
        };
        give().with_context(|| format!("give {name} to user {}", user.as_raw()))
    }

    fn give(&self, file: impl AsFd) -> io::Result<()> {
        match self.owner {
            Some(owner) if geteuid().is_root() => Ok(fchown(file, Some(owner.uid()), Some(owner.gid()))?),
            _ => Ok(()),
        }
    }

    /// The segments of the history.
    pub(super) fn segments(&self) -> io::Result<Vec<Found>> {
        segments(self.folder.as_fd())
    }

    /// The incidents, each with its segments.
    pub(super) fn incidents(&self) -> io::Result<Vec<(IncidentName, Vec<Found>)>> {
        let names = self.incident_names()?;
        names.into_iter().map(|name| Ok((name.clone(), segments(self.incident_folder(&name)?.as_fd())?))).collect()
    }

    fn incident_names(&self) -> io::Result<Vec<IncidentName>> {
        Ok(files(self.incidents.as_fd())?.iter().filter_map(|name| IncidentName::parse(name)).collect())
    }

    fn incident_folder(&self, name: &IncidentName) -> io::Result<OwnedFd> {
        Ok(openat(&self.incidents, name.to_string(), FOLDER, Mode::empty())?)
    }

    /// Makes the file of a segment, which only its owner reads (mode 0600).
    pub(super) fn create(&self, name: SegmentName) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.folder, name.to_string(), flags, Mode::RUSR | Mode::WUSR)?;
        if let Err(error) = self.give(&file) {
            gone(unlinkat(&self.folder, name.to_string(), AtFlags::empty()))?;
            return Err(error);
        }
        Ok(file.into())
    }

    /// Gives a segment that is complete its name. From then on it survives a crash of the machine.
    pub(super) fn complete(&self, name: SegmentName, file: &File) -> io::Result<()> {
        let synced = file.sync_all();
        self.rename_complete(name)?;
        synced
    }

    /// The same of one that an earlier recorder left behind.
    pub(super) fn rename_complete(&self, name: SegmentName) -> io::Result<()> {
        renameat(&self.folder, name.to_string(), &self.folder, name.closed().to_string())?;
        Ok(fsync(&self.folder)?)
    }

    /// Takes a segment out of the history.
    pub(super) fn remove_segment(&self, name: SegmentName) -> io::Result<()> {
        gone(unlinkat(&self.folder, name.to_string(), AtFlags::empty()))?;
        // Where it could not be given its name.
        let open = SegmentName { is_open: true, ..name };
        gone(unlinkat(&self.folder, open.to_string(), AtFlags::empty()))
    }

    pub(super) fn make_incident(&self, name: &IncidentName) -> io::Result<()> {
        mkdirat(&self.incidents, name.to_string(), OF_OWNER)?;
        Ok(())
    }

    pub(super) fn rename_incident(&self, from: &IncidentName, to: &IncidentName) -> io::Result<()> {
        Ok(renameat(&self.incidents, from.to_string(), &self.incidents, to.to_string())?)
    }

    /// A segment of the history is with an incident too.
    pub(super) fn link(&self, segment: SegmentName, incident: &IncidentName) -> io::Result<()> {
        let (name, folder) = (segment.to_string(), self.incident_folder(incident)?);
        match linkat(&self.folder, &name, &folder, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn remove_incident(&self, name: &IncidentName) -> io::Result<()> {
        let folder = self.incident_folder(name)?;
        for file in files(folder.as_fd())? {
            gone(unlinkat(&folder, file, AtFlags::empty()))?;
        }
        gone(unlinkat(&self.incidents, name.to_string(), AtFlags::REMOVEDIR))
    }
}

/// What somebody else has removed is removed.
fn gone(removed: Result<(), Errno>) -> io::Result<()> {
    match removed {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The names of everything in a folder.
fn files(folder: BorrowedFd<'_>) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.insert(name);
        }
    }
    Ok(names)
}

/// Something that no recorder has made.
fn other_file(folder: BorrowedFd<'_>) -> io::Result<Option<String>> {
    let is_ours = |name: &String| name == INCIDENTS || SegmentName::parse(name).is_some();
    let other = files(folder)?.into_iter().find(|name| !is_ours(name));
    Ok(other.map(|name| errno::printable(Path::new(&name))))
}

fn segments(folder: BorrowedFd<'_>) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for name in files(folder)? {
        let Some(segment) = SegmentName::parse(&name) else { continue };
        let file = statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(file.st_mode) == FileType::RegularFile {
            found.push(Found { name: segment, bytes: u64::try_from(file.st_size).unwrap_or(0) });
        }
    }
    Ok(found)
}
