//! What the running kernel has, read before anything is loaded.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use observer_ebpf::abi::Offsets;

use super::{
    btf::Btf,
    error::{KERNEL_BTF, ProbeError},
    offsets,
};
use crate::{
    errno::Refusal,
    host::text,
    model::hook::{HOOKS, MethodSpec, ProgramSpec, Target},
};

/// The running kernel, as its BTF describes it.
pub struct Kernel {
    /// Byte offset of each field that the kernel side reads.
    pub offsets: Offsets,
    /// Whether it has `bpf_get_current_task_btf` and `bpf_sock_from_file`.
    pub has_typed_files: bool,
    /// Parameters of the functions that [`Target::FunctionWith`] names. Those that BTF lacks are absent.
    parameters: HashMap<&'static str, u32>,
    pub(super) btf: aya::Btf,
}

/// CPUs of the host that are online; each may write records.
#[must_use]
pub fn cpus() -> usize {
    aya::util::online_cpus().map_or(1, |cpus| cpus.len())
}

impl Kernel {
    /// The running kernel, read again only if nobody holds what was read before: it takes as long as all else that is done in
    /// user space at start, and 5 MB of BTF become several times as much memory, which nobody needs after that.
    pub fn shared() -> Result<Arc<Self>, ProbeError> {
        static NEWEST: Mutex<Weak<Kernel>> = Mutex::new(Weak::new());
        let mut newest = NEWEST.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = newest.upgrade() {
            return Ok(kernel);
        }
        let kernel = Arc::new(Self::read()?);
        *newest = Arc::downgrade(&kernel);
        Ok(kernel)
    }

    /// Reads BTF.
    fn read() -> Result<Self, ProbeError> {
        let bytes = text::bytes(KERNEL_BTF).map_err(ProbeError::no_btf)?;
        let for_aya = aya::Btf::parse(&bytes, aya::Endianness::default());
        let btf = Btf::parse(bytes).map_err(ProbeError::BadBtf)?;
        let programs = HOOKS.iter().flat_map(|hook| hook.methods).flat_map(|method| method.programs);
        let functions = programs.filter_map(|program| match program.target {
            Target::FunctionWith(function, _) => Some(function),
            _ => None,
        });
        Ok(Self {
            offsets: offsets::resolve(&btf),
            has_typed_files: ["bpf_get_current_task_btf", "bpf_sock_from_file"]
                .iter()
                .all(|helper| btf.parameters(helper).is_some()),
            parameters: functions.filter_map(|function| Some((function, btf.parameters(function)?))).collect(),
            btf: for_aya.map_err(|error| ProbeError::load(&error))?,
        })
    }

    /// Whether bind buckets can be read: they show which ports connect() passes over.
    #[must_use]
    pub const fn reads_buckets(&self) -> bool {
        let Offsets { icsk_bind_hash, fastreuse, fastreuseport, tw_tb, .. } = self.offsets;
        icsk_bind_hash != Offsets::ABSENT
            && fastreuse != Offsets::ABSENT
            && fastreuseport != Offsets::ABSENT
            && tw_tb != Offsets::ABSENT
    }

    /// Whether a bind bucket is set free with its last explicit socket: since 6.18, which added `tw_connect_bind`.
    #[must_use]
    pub const fn frees_buckets(&self) -> bool {
        self.offsets.tw_connect_bind != Offsets::ABSENT
    }

    /// The programs of an attach method that fit this kernel's functions.
    pub fn programs(&self, method: &MethodSpec) -> Result<Vec<ProgramSpec>, Refusal> {
        let mut misfits = Vec::new();
        let mut fitting = Vec::new();
        for program in method.programs {
            match program.target {
                Target::FunctionWith(function, wanted) if self.parameters.get(function) != Some(&wanted) => {
                    misfits.push((function, wanted));
                }
                _ => fitting.push(*program),
            }
        }
        match misfits.first() {
            Some((function, _)) if fitting.is_empty() => Err(self.misfit(function, &misfits).into()),
            _ => Ok(fitting),
        }
    }

    fn misfit(&self, function: &str, misfits: &[(&str, u32)]) -> String {
        let Some(parameters) = self.parameters.get(function) else { return format!("BTF has no {function}") };
        let wanted: Vec<_> = misfits.iter().map(|(_, wanted)| wanted.to_string()).collect();
        format!("{function} has {parameters} parameters, not {}", wanted.join(" or "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hook::{AttachMethod, Hook};

    #[test]
    fn programs_are_those_that_fit_the_parameters_of_a_function() {
        let mut kernel = Kernel::read().expect("a kernel with BTF");
        let accept = Hook::Accept.spec().method(AttachMethod::Fexit).unwrap();
        let mut with = |parameters: Option<u32>| {
            kernel.parameters = parameters.map(|count| ("inet_csk_accept", count)).into_iter().collect();
            let programs = kernel.programs(accept).map_err(|refusal| refusal.to_string());
            programs.map(|programs| programs.iter().map(|program| program.name).collect::<Vec<_>>())
        };
        assert_eq!(with(Some(2)), Ok(vec!["accept_fexit_2_args"]));
        assert_eq!(with(Some(4)), Ok(vec!["accept_fexit_4_args"]));
        assert_eq!(with(Some(3)), Err("inet_csk_accept has 3 parameters, not 2 or 4".to_owned()));
        assert_eq!(with(None), Err("BTF has no inet_csk_accept".to_owned()));
    }
}
