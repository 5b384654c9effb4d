//! A monitoring plugin always says one line. What no error value can carry (no memory, a panic) ends a program by abort():
//! then this line is said.

/// The line, and the exit status of a monitoring plugin that knows nothing.
const LINE: &[u8] = b"OBSERVER UNKNOWN - observer had to give up: ENOMEM (Cannot allocate memory), or a defect\n";
const UNKNOWN: libc::c_int = 3;

/// From now on an abort or a panic says the line and ends with status 3.
pub fn speak_at_abort() {
    let explain = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        explain(panic);
        std::process::abort();
    }));
    let handler: extern "C" fn(libc::c_int) = speak;
    // SAFETY: the handler calls nothing but write() and _exit(), which signal handlers may.
    unsafe { libc::signal(libc::SIGABRT, handler as libc::sighandler_t) };
}

extern "C" fn speak(_: libc::c_int) {
    // SAFETY: LINE lives for ever and has this length; both calls are async-signal-safe.
    unsafe {
        libc::write(libc::STDOUT_FILENO, LINE.as_ptr().cast(), LINE.len());
        libc::_exit(UNKNOWN);
    }
}
