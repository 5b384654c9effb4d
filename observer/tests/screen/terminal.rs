//! A program in its own pseudo-terminal.

use std::{
    io::{Read as _, Write},
    os::unix::fs::OpenOptionsExt as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::Pid,
    termios::{LocalModes, tcgetattr},
};

pub(crate) const OBSERVER: &str = env!("CARGO_BIN_EXE_observer");
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// A pseudo-terminal with a program in it.
pub(crate) struct Terminal {
    pub(crate) parser: Arc<Mutex<vt100::Parser>>,
    pub(crate) raw: Arc<Mutex<Vec<u8>>>,
    pub(crate) child: Box<dyn Child + Send + Sync>,
    pub(crate) master: Box<dyn MasterPty + Send>,
    pub(crate) keys: Box<dyn Write + Send>,
    output_ended: Receiver<()>,
    /// While this is set, nobody reads the program's output.
    pub(crate) is_stuck: Arc<AtomicBool>,
    /// The reader has seen that, and has stopped.
    is_held: Arc<AtomicBool>,
}

impl Terminal {
    pub(crate) fn start(width: u16, height: u16, program: &str, args: &[&str], env: &[(&str, &str)]) -> Self {
        let size = PtySize { rows: height, cols: width, pixel_width: 0, pixel_height: 0 };
        let pty = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(program);
        command.args(args);
        command.env("TERM", "xterm-256color");
        command.env_remove("NO_COLOR");
        command.env("LC_ALL", "C.UTF-8");
        for (name, value) in env {
            if value.is_empty() { command.env_remove(name) } else { command.env(name, value) }
        }
        let child = pty.slave.spawn_command(command).unwrap();
        drop(pty.slave);
        let parser = Arc::new(Mutex::new(vt100::Parser::new(height, width, 0)));
        let raw = Arc::new(Mutex::new(Vec::new()));
        let (ended, output_ended) = channel();
        let (mut reader, to_parser, to_raw) =
            (pty.master.try_clone_reader().unwrap(), Arc::clone(&parser), Arc::clone(&raw));
        let is_stuck = Arc::new(AtomicBool::new(false));
        let is_held = Arc::new(AtomicBool::new(false));
        let (stuck, held) = (Arc::clone(&is_stuck), Arc::clone(&is_held));
        thread::spawn(move || {
            let mut bytes = [0; 8192];
            while let Ok(read @ 1..) = reader.read(&mut bytes) {
                while stuck.load(Ordering::Relaxed) {
                    held.store(true, Ordering::Relaxed);
                    thread::yield_now();
                }
                held.store(false, Ordering::Relaxed);
                to_parser.lock().unwrap().process(&bytes[..read]);
                to_raw.lock().unwrap().extend_from_slice(&bytes[..read]);
            }
            // Nobody receives it once the terminal is dropped.
            let _ = ended.send(());
        });
        let keys = pty.master.take_writer().unwrap();
        Self { parser, raw, child, master: pty.master, keys, output_ended, is_stuck, is_held }
    }

    pub(crate) fn observer(width: u16, height: u16) -> Self {
        Self::start(width, height, OBSERVER, &[], &[])
    }

    pub(crate) fn screen(&self) -> String {
        self.parser.lock().unwrap().screen().contents()
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, condition: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !condition(&self.screen()) {
            assert!(Instant::now() < deadline, "not seen: {what}\n{}", self.screen());
            thread::yield_now();
        }
    }

    #[track_caller]
    pub(crate) fn wait_for_words(&self, words: &[&str]) {
        for word in words {
            self.wait_for(word, |screen| screen.contains(word));
        }
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.process_id().unwrap().cast_signed()).unwrap()
    }

    /// The exit code, once the program has ended.
    #[track_caller]
    pub(crate) fn ends(&mut self) -> u32 {
        let deadline = Instant::now() + DEADLINE;
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.exit_code();
            }
            assert!(Instant::now() < deadline, "still running\n{}", self.screen());
            thread::yield_now();
        };
        // A shell may keep the terminal open: then the output never ends, but it is complete.
        let _ = self.output_ended.recv_timeout(Duration::from_millis(200));
        code
    }

    /// Whether the program cannot write another byte: nobody reads, or Ctrl-S has stopped its output. During a write
    /// the terminal seems full too, hence more than one look.
    pub(crate) fn is_full(&self) -> bool {
        const LOOKS: usize = 200;
        let slave = std::fs::OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
            .open(format!("/proc/{}/fd/1", self.pid().as_raw_nonzero()))
            .unwrap();
        let mut asked = [PollFd::new(&slave, PollFlags::OUT)];
        (0..LOOKS).all(|_| {
            thread::yield_now();
            poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 0
        })
    }

    /// Presses `key` until the terminal, which is not read any more, is full of what that draws.
    pub(crate) fn fill(&mut self, key: &str) {
        self.is_stuck.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + DEADLINE;
        while !self.is_filled() {
            assert!(Instant::now() < deadline, "the program never filled the terminal");
            self.press(key);
            thread::yield_now();
        }
    }

    /// Whether nobody reads.
    pub(crate) fn is_unread(&self) -> bool {
        self.is_held.load(Ordering::Relaxed)
    }

    /// Whether nobody reads and the terminal is full.
    pub(crate) fn is_filled(&self) -> bool {
        self.is_unread() && self.is_full()
    }

    /// Checks that raw mode is off, the main screen is back and the cursor is visible.
    #[track_caller]
    pub(crate) fn is_restored(&self) {
        let parser = self.parser.lock().unwrap();
        let screen = parser.screen();
        assert!(!screen.alternate_screen(), "still on the alternate screen");
        assert!(!screen.hide_cursor(), "the cursor is hidden");
        assert!(!screen.bracketed_paste(), "pasted text is still bracketed");
        drop(parser);
        let fd = self.master.as_raw_fd().unwrap();
        // SAFETY: the master is open for as long as `self`.
        let modes = tcgetattr(unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) }).unwrap();
        assert!(modes.local_modes.contains(LocalModes::ICANON | LocalModes::ECHO), "still in raw mode");
    }
}

pub(crate) const MAIN_SCREEN: [&str; 4] = ["observer", "ESTAB", "last scan", "q quit"];
