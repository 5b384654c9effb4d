//! Build tasks of the repository, run as `cargo xtask <task>`: everything that plain cargo does not do.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod apt;
mod bench;
mod debian_root;
mod deny;
mod dist;
mod ebpf;
mod fuzz;
mod process;
mod shots;
mod tally;
mod test;
mod tools;
mod vm;
mod workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build tasks of observer")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measure what observer costs, beside its peers (needs root; installs them)
    Bench(bench::Request),
    /// Check the licences and sources of all dependencies against `deny.toml`
    Deny,
    /// Build what an administrator installs into `target/dist`: packages, an image, a tar archive and their checksums
    Dist(dist::Request),
    /// Build the BPF objects into `observer/bpf/`
    Ebpf {
        /// Write nothing: fail unless the source builds the objects in `observer/bpf/`
        #[arg(long)]
        check: bool,
    },
    /// Run the fuzz targets of `observer/fuzz`
    Fuzz(fuzz::Request),
    /// Draw the pictures of the documents from the recordings in `observer/tests/data`
    Shots {
        /// Make the recordings first, of real connections (needs root)
        #[arg(long)]
        record: bool,
    },
    /// Be an actor of a recording
    #[command(hide = true)]
    Act {
        actor: shots::Actor,
        /// The folder of the cgroup to be in
        #[arg(long)]
        cgroup: Option<PathBuf>,
    },
    /// Be the load that is measured
    #[command(hide = true)]
    Load {
        #[command(subcommand)]
        load: bench::Load,
    },
    /// Run every check and every test, after installing what they need
    Test,
    /// Run the live tests on Debian's kernels, each in a virtual machine
    Vm {
        /// Such as 6.12; without any, the kernels of `cargo xtask test`
        series: Vec<String>,
        /// The processor: x86_64 or aarch64
        #[arg(long, default_value = "x86_64", value_parser = vm::arch::named)]
        arch: &'static vm::arch::Arch,
        /// Run the guest on the processor instead of emulating it
        #[arg(long)]
        kvm: bool,
        /// Write `docs/kernel-support.md` instead of checking it
        #[arg(long)]
        write_docs: bool,
        /// Run every test on every kernel, and not only those that a kernel can make a difference to
        #[arg(long)]
        all_tests: bool,
        /// Arguments for the test binary, such as a part of a test's name
        #[arg(last = true)]
        test_args: Vec<String>,
    },
}

fn main() -> ExitCode {
    let task = Cli::parse().task;
    if let Err(error) = workspace::enter() {
        return finish(Err(error));
    }
    match task {
        Task::Bench(request) => finish(bench::run(&request)),
        Task::Deny => finish(deny::check()),
        Task::Dist(request) => finish(dist::run(&request)),
        Task::Ebpf { check: false } => finish(ebpf::write()),
        Task::Ebpf { check: true } => finish(ebpf::check()),
        Task::Fuzz(request) => finish(fuzz::run(&request)),
        Task::Shots { record } => finish(shots::run(record)),
        Task::Act { actor, cgroup } => finish(actor.play(cgroup.as_deref())),
        Task::Load { load } => finish(load.play()),
        Task::Test => test::run(),
        Task::Vm { series, arch, kvm, write_docs, all_tests, test_args } => {
            test::run_vms(&vm::Request { arch, series, kvm, write_docs, test_args, all_tests })
        }
    }
}

/// Prints the error, if there is one, and returns the exit code.
fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
