//! The processors that guests may have: this machine's own, and one whose programs are all brought along.

/// A processor's names, as each program calls it, and how QEMU makes a machine with it.
#[derive(Debug)]
pub(crate) struct Arch {
    /// Rust's and the C compiler's.
    pub(crate) name: &'static str,
    pub(crate) debian: &'static str,
    pub(crate) qemu: &'static str,
    pub(crate) machine: &'static str,
    /// The model of an emulated processor.
    pub(crate) cpu: &'static str,
    pub(crate) console: &'static str,
    /// Kernel parameters beside those of all architectures.
    pub(crate) command_line: &'static str,
}

/// Clocks stand still for a while where the host is busy, and are not to be doubted for it: 6.1 panicked over its timer
/// in 1 of some 15 such boots.
pub(crate) const X86_64: Arch = Arch {
    name: "x86_64",
    debian: "amd64",
    qemu: "qemu-system-x86_64",
    machine: "q35",
    // Without the fast string instructions of real processors: they make kernels copy and clear memory one byte at a time by
    // `rep movsb` and `rep stosb`, of which QEMU emulates every step. The kernel spent a third of its time there.
    //
    // Without `cmpxchg16b`: after it, QEMU 7.2 may hold another number in place of the flags, bits of a pointer. Kernels that
    // allocate memory by it panicked where an interrupt came just then: 6.18 did while it booted.
    cpu: "max,-erms,-fsrm,-cx16",
    console: "ttyS0",
    // On a busy host the TSC is measured wrongly: clocks ran three times too fast by it.
    command_line: "clocksource=acpi_pm no_timer_check",
};

pub(crate) const AARCH64: Arch = Arch {
    name: "aarch64",
    debian: "arm64",
    qemu: "qemu-system-aarch64",
    machine: "virt",
    cpu: "max",
    console: "ttyAMA0",
    command_line: "",
};

/// The processor of this name.
pub(crate) fn named(name: &str) -> Result<&'static Arch, String> {
    let all = [&X86_64, &AARCH64];
    let known = || format!("known are {}", all.map(|arch| arch.name).join(" and "));
    all.into_iter().find(|arch| arch.name == name).ok_or_else(known)
}

impl Arch {
    /// Whether this machine's own programs run on it.
    pub(crate) fn is_native(&self) -> bool {
        self.name == std::env::consts::ARCH
    }

    pub(crate) fn target(&self) -> String {
        format!("{}-unknown-linux-gnu", self.name)
    }

    /// Debian's small kernels for virtual machines.
    pub(crate) fn flavour(&self) -> String {
        format!("cloud-{}", self.debian)
    }
}
