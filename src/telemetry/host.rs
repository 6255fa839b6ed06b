//! The numbers of this machine and of this process, from `/proc` and `statvfs`. Calls block, for microseconds.
//!
//! What cannot be seen is none: a kernel without PSI, a process that may not look at its own descriptors, a path that is on
//! no disk of ours. In a container `/proc/stat`, `meminfo`, `loadavg` and `pressure` are the host's all the same.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use procfs_core::process::Stat;
use procfs_core::{
    ExplicitSystemInfo, FromBufReadSI as _, FromRead as _, KernelStats, LoadAverage, Meminfo, parse_pressure_record,
};
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

/// Where the numbers are read.
#[derive(Debug, Clone)]
pub struct HostReader {
    proc: PathBuf,
}

impl Default for HostReader {
    fn default() -> Self {
        Self::at("/proc")
    }
}

/// The machine at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HostSample {
    /// CPUs that are there, and how busy they have been since the start of the machine.
    pub cpu: Option<CpuTimes>,
    /// Memory in bytes.
    pub memory: Option<Memory>,
    /// Load averages over 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
    /// What tasks waited for.
    pub pressure: Pressure,
}

/// Time in the kernel's ticks, all CPUs together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuTimes {
    /// How many CPUs.
    pub cores: u64,
    /// Neither idle nor waiting for a disk.
    pub busy: u64,
    /// All.
    pub total: u64,
}

impl CpuTimes {
    /// How many CPUs were busy between an earlier look and this one; none when no time has passed.
    #[allow(clippy::cast_precision_loss, reason = "a ratio of ticks needs no more digits")]
    pub fn used_since(&self, earlier: &Self) -> Option<f64> {
        let passed = self.total.checked_sub(earlier.total).filter(|passed| *passed > 0)?;
        // The kernel's idle time may go backwards a little when a CPU goes away.
        let busy = self.busy.saturating_sub(earlier.busy).min(passed);
        Some(self.cores as f64 * busy as f64 / passed as f64)
    }
}

/// The memory of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// All there is.
    pub total_bytes: u64,
    /// What is not available.
    pub used_bytes: u64,
    /// What a new program could have without swapping (the kernel's estimate).
    pub available_bytes: u64,
    /// Swap that is in use.
    pub swap_used_bytes: u64,
}

/// Pressure stall information (PSI); none where the kernel has none.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the kernel's names")]
pub struct Pressure {
    pub cpu: Option<Stalls>,
    pub memory: Option<Stalls>,
    pub io: Option<Stalls>,
}

/// Percentages of time in which some or all tasks waited for one resource.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Stalls {
    /// At least one task waited.
    pub some: Averages,
    /// All tasks that could have run waited; none for CPUs of kernels that do not say it.
    pub full: Option<Averages>,
}

/// Percentages, averaged over 10, 60 and 300 seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the kernel's names")]
pub struct Averages {
    pub avg10: f32,
    pub avg60: f32,
    pub avg300: f32,
}

/// One file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[allow(missing_docs, reason = "the names say it")]
pub struct Disk {
    pub total_bytes: u64,
    pub used_bytes: u64,
    /// What everybody may still write; a file system keeps some back for root.
    pub free_bytes: u64,
    /// Zero where the file system has no fixed number of them.
    pub total_inodes: u64,
    pub free_inodes: u64,
    /// Whether nothing can be written to it from where the agent runs.
    #[serde(skip)]
    pub read_only: bool,
}

impl Disk {
    /// The file system that holds this path; none when there is no such path.
    pub fn of(path: &Path) -> Option<Self> {
        let found = rustix::fs::statvfs(path).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Some(Self {
            total_bytes: bytes(found.f_blocks),
            used_bytes: bytes(found.f_blocks.saturating_sub(found.f_bfree)),
            free_bytes: bytes(found.f_bavail),
            total_inodes: found.f_files,
            free_inodes: found.f_favail,
            read_only: found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
        })
    }
}

/// This process.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ProcessSample {
    /// Resident memory.
    pub resident_bytes: Option<u64>,
    /// CPU time used, in user and in system mode.
    pub cpu_seconds: Option<f64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open descriptors.
    pub open_descriptors: Option<u64>,
    /// How many there may be.
    pub descriptor_limit: Option<u64>,
}

impl HostReader {
    /// Reads below this directory instead of `/proc`.
    pub fn at(proc: impl Into<PathBuf>) -> Self {
        Self { proc: proc.into() }
    }

    fn open(&self, name: &str) -> Option<BufReader<File>> {
        File::open(self.proc.join(name)).ok().map(BufReader::new)
    }

    /// The machine now.
    pub fn sample(&self) -> HostSample {
        HostSample { cpu: self.cpu(), memory: self.memory(), load: self.load(), pressure: self.pressure() }
    }

    /// CPU times alone: for the second of two looks.
    pub fn cpu(&self) -> Option<CpuTimes> {
        // The parser keeps these for conversions that are not asked for here.
        let system = ExplicitSystemInfo {
            boot_time_secs: 0,
            ticks_per_second: rustix::param::clock_ticks_per_second(),
            page_size: page_size(),
            is_little_endian: cfg!(target_endian = "little"),
        };
        let stats = KernelStats::from_buf_read(self.open("stat")?, &system).ok()?;
        let all = &stats.total;
        let or_zero = |ticks: Option<u64>| ticks.unwrap_or(0);
        // Guests' time is a part of `user` and `nice` already.
        let busy = [all.user, all.nice, all.system, or_zero(all.irq), or_zero(all.softirq), or_zero(all.steal)];
        let busy = busy.into_iter().fold(0, u64::saturating_add);
        let total = busy.saturating_add(all.idle).saturating_add(or_zero(all.iowait));
        Some(CpuTimes { cores: stats.cpu_time.len() as u64, busy, total })
    }

    fn memory(&self) -> Option<Memory> {
        let found = Meminfo::from_read(self.open("meminfo")?).ok()?;
        let available_bytes = found.mem_available?.min(found.mem_total);
        Some(Memory {
            total_bytes: found.mem_total,
            used_bytes: found.mem_total - available_bytes,
            available_bytes,
            swap_used_bytes: found.swap_total.saturating_sub(found.swap_free),
        })
    }

    fn load(&self) -> Option<[f64; 3]> {
        let found = LoadAverage::from_read(self.open("loadavg")?).ok()?;
        Some([found.one, found.five, found.fifteen].map(f64::from))
    }

    fn pressure(&self) -> Pressure {
        Pressure {
            cpu: self.stalls("pressure/cpu"),
            memory: self.stalls("pressure/memory"),
            io: self.stalls("pressure/io"),
        }
    }

    /// A kernel that was started with `psi=0` has the files, but reading them fails. Before 5.13 `cpu` has no `full`.
    fn stalls(&self, name: &str) -> Option<Stalls> {
        let (mut some, mut full) = (None, None);
        for line in self.open(name)?.lines().take(2) {
            let line = line.ok()?;
            let record = parse_pressure_record(&line).ok()?;
            let averages = Averages { avg10: record.avg10, avg60: record.avg60, avg300: record.avg300 };
            if line.starts_with("some") { some = Some(averages) } else { full = Some(averages) }
        }
        Some(Stalls { some: some?, full })
    }

    /// This process now.
    #[allow(clippy::cast_precision_loss, reason = "hundredths of seconds of CPU time stay exact for millions of years")]
    pub fn process(&self) -> ProcessSample {
        let stat = self.open("self/stat").and_then(|file| Stat::from_read(file).ok());
        let stat = stat.as_ref();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let descriptors = std::fs::read_dir(self.proc.join("self/fd")).ok();
        ProcessSample {
            resident_bytes: stat.map(|stat| stat.rss.saturating_mul(page_size())),
            cpu_seconds: stat.map(|stat| (stat.utime + stat.stime) as f64 / ticks),
            threads: stat.and_then(|stat| u64::try_from(stat.num_threads).ok()),
            // One of them is the look itself.
            open_descriptors: descriptors.map(|names| (names.count() as u64).saturating_sub(1)),
            descriptor_limit: getrlimit(Resource::Nofile).current,
        }
    }
}

fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `/proc` with these files.
    fn proc(files: &[(&str, &str)]) -> (tempfile::TempDir, HostReader) {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let reader = HostReader::at(root.path());
        (root, reader)
    }

    const STAT: &str = "cpu  100 20 30 800 40 5 5 0 7 0\ncpu0 50 10 15 400 20 5 0 0 7 0\n\
        cpu1 50 10 15 400 20 0 5 0 0 0\nintr 1 2\nctxt 5\nbtime 1700000000\nprocesses 9\nprocs_running 1\nprocs_blocked 0\n";
    /// Linux 4.15, no PSI.
    const MEMINFO: &str = "MemTotal:        8000000 kB\nMemFree:          100000 kB\nMemAvailable:    6000000 kB\n\
        Buffers:          1 kB\nCached:           1 kB\nSwapCached:            0 kB\nActive:           1 kB\n\
        Inactive:          1 kB\nSwapTotal:       1000 kB\nSwapFree:         400 kB\nDirty:                 0 kB\n\
        Writeback:             0 kB\nAnonPages:        1 kB\nMapped:           1 kB\nShmem:              1 kB\n\
        Slab:             1 kB\nSReclaimable:      1 kB\nSUnreclaim:        1 kB\nKernelStack:        1 kB\n\
        PageTables:        1 kB\nNFS_Unstable:          0 kB\nBounce:                0 kB\nWritebackTmp:          0 kB\n\
        CommitLimit:     1 kB\nCommitted_AS:    1 kB\nVmallocTotal:   1 kB\nVmallocUsed:           0 kB\n\
        VmallocChunk:          0 kB\n";

    #[test]
    fn an_old_host_without_pressure() {
        let (_root, reader) = proc(&[("stat", STAT), ("meminfo", MEMINFO), ("loadavg", "0.50 1.25 2.00 1/200 4711\n")]);
        let sample = reader.sample();
        assert_eq!(sample.cpu, Some(CpuTimes { cores: 2, busy: 160, total: 1000 }));
        let memory = Memory {
            total_bytes: 8_000_000 << 10,
            used_bytes: 2_000_000 << 10,
            available_bytes: 6_000_000 << 10,
            swap_used_bytes: 600 << 10,
        };
        assert_eq!(sample.memory, Some(memory));
        assert_eq!(sample.load, Some([0.5, 1.25, 2.0]));
        assert_eq!(sample.pressure, Pressure::default());
    }

    #[test]
    fn pressure_where_there_is_some() {
        let some = "some avg10=1.50 avg60=0.25 avg300=0.00 total=1\n";
        let both = "some avg10=1.50 avg60=0.25 avg300=0.00 total=1\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=1\n";
        let (_root, reader) =
            proc(&[("pressure/cpu", some), ("pressure/memory", both), ("pressure/io", "nonsense avg10=1\n")]);
        let found = reader.pressure();
        let averages = |avg10, avg60| Averages { avg10, avg60, avg300: 0.0 };
        assert_eq!(found.cpu, Some(Stalls { some: averages(1.5, 0.25), full: None }), "before Linux 5.13");
        assert_eq!(found.memory, Some(Stalls { some: averages(1.5, 0.25), full: Some(averages(0.5, 0.0)) }));
        assert_eq!(found.io, None);
    }

    #[test]
    fn nothing_there_and_nonsense_is_none() {
        let (_root, reader) = proc(&[("stat", "cpu x\n"), ("meminfo", "MemTotal: 1 kB\n"), ("loadavg", "")]);
        assert_eq!(reader.sample(), HostSample::default());
        assert_eq!(HostReader::at("/does/not/exist").sample(), HostSample::default());
        assert_eq!(Disk::of(Path::new("/does/not/exist")), None);
    }

    #[test]
    fn used_cores_are_the_busy_part_of_what_has_passed() {
        let at = |busy, total| CpuTimes { cores: 4, busy, total };
        for (before, now, used) in [
            (at(100, 1000), at(150, 1100), Some(2.0)),
            (at(100, 1000), at(100, 1100), Some(0.0)),
            (at(100, 1000), at(90, 1100), Some(0.0)),
            (at(100, 1000), at(300, 1100), Some(4.0)),
            (at(100, 1000), at(100, 1000), None),
            (at(100, 1000), at(100, 900), None),
        ] {
            assert_eq!(now.used_since(&before), used, "{before:?} {now:?}");
        }
    }

    #[test]
    fn this_machine_and_this_process() {
        let reader = HostReader::default();
        let sample = reader.sample();
        assert!(sample.cpu.is_some_and(|cpu| cpu.cores > 0 && cpu.total > 0), "{sample:?}");
        assert!(sample.memory.is_some_and(|memory| memory.total_bytes > memory.available_bytes), "{sample:?}");
        let process = reader.process();
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 1 << 20), "{process:?}");
        assert!(process.open_descriptors.is_some_and(|count| count >= 3), "{process:?}");
        let disk = Disk::of(Path::new("/")).unwrap();
        assert!(disk.total_bytes >= disk.used_bytes && disk.total_bytes > 0, "{disk:?}");
    }
}
