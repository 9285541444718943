//! Every ELF file of this machine, normalised and rebuilt.
//!
//! Slow, and different on every machine: `cargo test --release --test it machine -- --ignored --nocapture`.
//! `WHIT_ELF_FOLDERS`, separated by colons, names the folders; the default is where a Linux system has its programs.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use delta::relink::{Encoded, normalise_unproven};
use ground::limits::EXECUTABLE_BYTES_MAX;

const FOLDERS: &str = "/usr:/opt:/lib:/root:/home";
/// 4 MiB: for files this large or larger, memory is measured.
const MEASURED_BYTES_MIN: usize = 4 * 1024 * 1024;

/// Results over all files.
#[derive(Debug, Default)]
struct Figures {
    files: u64,
    bytes: u64,
    /// Normalised and rebuilt bit for bit.
    whole: u64,
    whole_bytes: u64,
    /// Not understood, or too unusual to be rebuilt: an agent sends these as other files.
    refused: u64,
    refused_bytes: u64,
    too_large: u64,
    /// Encoded against themselves and rebuilt, as on a proxy.
    told: u64,
    /// Rebuilt wrongly, without the agent's proof noticing.
    wrong: u64,
    apart: Duration,
    together: Duration,
    /// Bytes of memory, beyond the file's own, for each of its bytes.
    factors: Vec<f64>,
}

/// Returns all ELF files below the folders, one place for each content.
fn files(folders: &str) -> Vec<PathBuf> {
    let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
    let mut left: Vec<PathBuf> = folders.split(':').map(PathBuf::from).collect();
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            let path = entry.path();
            if metadata.is_dir() {
                left.push(path);
            } else if metadata.is_file() && seen.insert((metadata.dev(), metadata.ino())) && is_elf(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn is_elf(path: &Path) -> bool {
    let mut begin = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut begin)).is_ok() && begin == *b"\x7fELF"
}

/// Returns the process's memory in bytes: the present amount, and the most since the last call.
fn memory() -> Option<(usize, usize)> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok().map(|kibibytes| kibibytes * 1024)
    };
    let told = (of("VmRSS:")?, of("VmHWM:")?);
    // proc(5): 5 resets the peak to the present amount.
    fs::write("/proc/self/clear_refs", "5").ok()?;
    Some(told)
}

fn measure(file: &[u8], figures: &mut Figures) {
    let before = memory();
    let begin = Instant::now();
    let parts = normalise_unproven(file);
    figures.apart += begin.elapsed();
    let begin = Instant::now();
    let restored = parts.as_ref().and_then(|parts| parts.restore().ok());
    figures.together += begin.elapsed();
    if let (Some((before, _)), Some((_, most)), true) = (before, memory(), file.len() >= MEASURED_BYTES_MIN) {
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        figures.factors.push(most.saturating_sub(before) as f64 / file.len() as f64);
    }
    let bytes = file.len() as u64;
    let Some(parts) = parts.filter(|_| restored.as_deref() == Some(file)) else {
        (figures.refused, figures.refused_bytes) = (figures.refused + 1, figures.refused_bytes + bytes);
        return;
    };
    (figures.whole, figures.whole_bytes) = (figures.whole + 1, figures.whole_bytes + bytes);
    // The agent's proof must hold on the proxy too, which normalises the older file by itself.
    if file.len() <= MEASURED_BYTES_MIN {
        let kept = Encoded::new(&parts, &parts, 1).encode();
        let made =
            Encoded::decode(&kept).and_then(|kept| kept.rebuild(parts.clone(), EXECUTABLE_BYTES_MAX).ok());
        figures.told += 1;
        figures.wrong += u64::from(made.as_deref() != Some(file));
    }
}

#[test]
#[ignore = "reads all programs of the machine: minutes"]
fn every_executable_of_this_machine_comes_back_bit_for_bit_or_stays_raw() {
    let folders = std::env::var("WHIT_ELF_FOLDERS").unwrap_or_else(|_| FOLDERS.to_owned());
    let mut figures = Figures::default();
    for path in files(&folders) {
        let Ok(file) = fs::read(&path) else { continue };
        (figures.files, figures.bytes) = (figures.files + 1, figures.bytes + file.len() as u64);
        if file.len() > EXECUTABLE_BYTES_MAX {
            figures.too_large += 1;
            continue;
        }
        let wrong = figures.wrong;
        measure(&file, &mut figures);
        if figures.wrong > wrong {
            println!("{} came back as something else", path.display());
        }
    }
    let Figures { files, bytes, whole, whole_bytes, refused, refused_bytes, too_large, told, wrong, .. } =
        figures;
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = |time: Duration| (whole_bytes + refused_bytes) as f64 / 1e6 / time.as_secs_f64();
    figures.factors.sort_by(f64::total_cmp);
    let factor = |percent: usize| {
        let at = figures.factors.len().saturating_sub(1) * percent / 100;
        figures.factors.get(at).copied().unwrap_or_default()
    };
    println!(
        "{files} files of {bytes} B: {whole} of {whole_bytes} B came back, {refused} of {refused_bytes} B refused, {too_large} too large; {told} told by themselves, {wrong} wrong; {:.0} MB/s apart, {:.0} MB/s together; memory for each byte of {} files: median {:.1}, most {:.1}",
        rate(figures.apart),
        rate(figures.together),
        figures.factors.len(),
        factor(50),
        factor(100),
    );
    assert!(whole > 0, "there are no programs below {folders}");
    assert_eq!(wrong, 0);
}
