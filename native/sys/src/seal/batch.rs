//! Many files, one group commit: write all, one `syncfs`, then every original goes.

use std::os::fd::BorrowedFd;

use rustix::fs::syncfs;

use super::journal::label;
use super::retire::{retire, withdraw};
use super::rewrapping::each;
use super::sealing::{Ready, Sealed, Sealer, Target};
use super::stream::Workspace;
use crate::files::trouble::{retry, Result, Trouble};

/// Files between two `syncfs`: each holds three descriptors open until then.
const BATCH: usize = 192;

/// Seals `paths`, each beside its original; results in their order.
pub fn seal_many(
    sealer: &Sealer<'_>,
    root: BorrowedFd<'_>,
    paths: &[&[u8]],
) -> Result<Vec<Result<Sealed>>> {
    let root_label = label(root)?;
    let mut out = Vec::with_capacity(paths.len());
    for batch in paths.chunks(BATCH) {
        let ready = each(batch, sealer.options.threads, |path| {
            WORKSPACE.with_borrow_mut(|w| sealer.prepare(root, path, Target::Beside, 1, w))
        });
        out.extend(commit(sealer, root, &root_label, ready)?);
    }
    Ok(out)
}

thread_local! {
    static WORKSPACE: std::cell::RefCell<Workspace> = std::cell::RefCell::default();
}

fn commit(
    sealer: &Sealer<'_>,
    root: BorrowedFd<'_>,
    root_label: &[u8],
    mut ready: Vec<Result<Ready>>,
) -> Result<Vec<Result<Sealed>>> {
    let durable = sealer.options.durable;
    let mut records = Vec::with_capacity(ready.len());
    let mut named = Vec::with_capacity(ready.len());
    for one in &mut ready {
        let outcome = one.as_ref().map_err(Clone::clone).and_then(|file| {
            let name = sealer.choose(file, Target::Beside, &mut 0)?;
            sealer.record(root_label, root_label, file, &name)
        });
        match outcome {
            Ok(record) => {
                named.push(Some(records.len()));
                records.push(record);
            }
            Err(trouble) => {
                named.push(None);
                *one = Err(trouble);
            }
        }
    }
    let transaction = sealer.journal.begin(&records, durable)?;
    for (one, index) in ready.iter_mut().zip(&named) {
        let (Ok(file), Some(index)) = (one.as_mut(), index) else {
            continue;
        };
        let name = &records[*index].to.name;
        file.sealed.path = file.dir.join(name);
        if let Err(trouble) = file.staged.publish(&file.dir, name) {
            *one = Err(trouble);
        }
    }
    if durable {
        if let Err(trouble) =
            retry(|| syncfs(root)).map_err(|e| Trouble::data(e, "files cannot be made durable"))
        {
            for (one, index) in ready.iter_mut().zip(&named) {
                if let (Ok(file), Some(index)) = (one.as_ref(), index) {
                    withdraw(
                        &file.dir,
                        &records[*index].to.name,
                        records[*index].to.stamp.ino,
                    );
                    *one = Err(trouble.clone());
                }
            }
        }
    }
    let mut stuck = false;
    let out = ready
        .into_iter()
        .zip(named)
        .map(|(one, index)| {
            let file = one?;
            let Some(record) = index.map(|i| &records[i]) else {
                return Ok(file.sealed);
            };
            if !sealer.options.keep_original {
                if let Err(kept) = retire(&file.dir, &file.name, &file.source, &record.aside) {
                    stuck |= !kept.in_place;
                    if kept.in_place {
                        withdraw(&file.dir, &record.to.name, record.to.stamp.ino);
                    }
                    return Err(kept.trouble);
                }
            }
            Ok(file.sealed)
        })
        .collect();
    if !stuck {
        if durable {
            let _late = retry(|| syncfs(root));
        }
        sealer.journal.close(transaction);
    }
    Ok(out)
}
