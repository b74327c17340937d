//! What a link and a copy cost: `cargo run --release --example vault_speed -- DIR [FILES]`, in an empty directory of
//! the file system in question.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use shieldd_sys::events::Globs;
use shieldd_sys::preserve::{place, About, Options, Vault, Walk};

fn now_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos() as u64)
}

/// Processor time of this process, ns.
fn cpu_ns() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

fn report(what: &str, mut each_ns: Vec<u64>) {
    each_ns.sort_unstable();
    let at = |part: usize| each_ns[each_ns.len() * part / 1000] as f64 / 1e3;
    println!(
        "{what}: p50 {:.1} us, p99 {:.1} us, min {:.1} us",
        at(500),
        at(990),
        at(0)
    );
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let base = arguments.next().ok_or("name a directory")?;
    let files: usize = arguments.next().map_or(Ok(20_000), |n| n.parse())?;
    let tree = format!("{base}/tree");
    std::fs::create_dir(&tree)?;
    for i in 0..files {
        if i % 1000 == 0 {
            std::fs::create_dir(format!("{tree}/{}", i / 1000))?;
        }
        std::fs::write(format!("{tree}/{}/{i}", i / 1000), [i as u8; 8192])?;
    }
    let parent: OwnedFd = std::fs::File::open(&base)?.into();
    let said = |t: shieldd_sys::files::Trouble| t.message;
    let dir = place::make(parent.as_fd(), place::NAME).map_err(said)?;
    let options = Options {
        trees: vec![(0, tree.clone().into_bytes())],
        ..Options::default()
    };
    let vault = Vault::open(dir, options).map_err(said)?;
    vault.prepare_ahead(64).map_err(said)?;
    let mut each = Vec::new();
    let mut cpu = 0;
    for i in 0..files.min(20_000) {
        let path = format!("{}/{i}", i / 1000);
        let file: OwnedFd = std::fs::File::open(format!("{tree}/{path}"))?.into();
        let about = About {
            tree: 0,
            path: path.as_bytes(),
            actor: 1 << 63,
            at_ns: now_ns(),
        };
        let (began, used) = (Instant::now(), cpu_ns());
        vault.image(file.as_fd(), &about).map_err(said)?;
        each.push(began.elapsed().as_nanos() as u64);
        cpu += cpu_ns() - used;
    }
    println!(
        "image of 8 KiB: {:.1} us of processor each",
        cpu as f64 / each.len() as f64 / 1e3
    );
    report("image of 8 KiB", each);
    let root: OwnedFd = std::fs::File::open(&tree)?.into();
    let mut walk = Walk::new(vault, root, 0, Globs::default());
    let (began, used) = (Instant::now(), cpu_ns());
    let mut slices = Vec::new();
    loop {
        let slice = Instant::now();
        let progress = walk.step(1000, now_ns()).map_err(said)?;
        slices.push(slice.elapsed().as_nanos() as u64 / 1000);
        if progress.done == 1 {
            let took = began.elapsed().as_secs_f64();
            let cpu = (cpu_ns() - used) as f64 / 1e9;
            println!(
                "{} links: {took:.3} s, {cpu:.3} s of processor",
                progress.linked
            );
            break;
        }
    }
    slices.pop();
    report("link, mean of 1000", slices);
    Ok(())
}
