//! Sweeps: they free the leases of containers that are gone, make lost leases again, and make a lost journal again.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use linux::Living;

use super::Pool;
use crate::error::Error;
use crate::journal::{Completeness, Page};
use crate::lease::{Held, Owner};
use crate::protocol::{self, Ended, Entry, Mode, State, Take, Taken, Verdict};
use crate::store::{Answer, Request};

/// The most pages that an ADD or a DEL settles for others.
const SETTLED_AT_ONCE: usize = 8;

/// The results of a sweep.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Leases of containers that are gone.
    pub freed: usize,
    /// Leases that the store had lost, and that were made again.
    pub restored: usize,
    /// Leases that could not be freed or made again now.
    pub left: usize,
}

impl Pool<'_> {
    /// Makes the journal complete, if it is not.
    ///
    /// # Errors
    ///
    /// The journal cannot be read or written, or the store cannot be asked.
    pub(super) fn complete(&self) -> Result<(), Error> {
        match self.journal.completeness()? {
            Completeness::Complete => Ok(()),
            Completeness::Earlier => self.sweep(&HashSet::new()).map(drop),
            Completeness::Missing => self.recover(),
        }
    }

    /// Frees the leases of containers of this node that are gone, and makes lost leases again. `valid` are owners whose
    /// leases stay in any case.
    ///
    /// # Errors
    ///
    /// The store cannot be asked, or the journal cannot be read or written.
    pub fn sweep(&self, valid: &HashSet<Owner>) -> Result<Swept, Error> {
        self.journal.create()?;
        match self.journal.completeness()? {
            // Nothing is deleted in the call that makes the journal again.
            Completeness::Missing => self.recover().map(|()| Swept::default()),
            _ => self.sweep_for(None, valid),
        }
    }

    /// As [`Pool::sweep`], for a call that has the lock of `locked`, whose page it changes itself.
    pub(super) fn sweep_for(&self, locked: Option<&Owner>, valid: &HashSet<Owner>) -> Result<Swept, Error> {
        // First the store, then the journal and the namespaces: a container can begin in between.
        let leases = self.list()?;
        self.journal.unset_unsettled();
        let (pages, damaged) = self.journal.pages()?;
        for (owner, error) in &damaged {
            (self.remark)(format_args!("a page of the journal is made again: {error}"));
            if let Some(owner) = owner.as_ref().filter(|owner| locked != Some(*owner)) {
                self.mend(owner, &leases)?;
            }
        }
        let mut living = Living::default();
        let mut lives = |netns: u64| living.has(netns);
        let mut swept = Swept::default();
        let mut foreign = 0;
        let is_ours = |owner: Option<&Owner>| owner.is_some_and(|owner| valid.contains(owner) || locked == Some(owner));
        for held in &leases {
            let owner = held.lease.owner();
            let page = pages.iter().find(|page| page.boot == self.node.boot && Some(&page.owner()) == owner);
            let entries = page.map(Page::entries).unwrap_or_default();
            let entry = entries.iter().find(|entry| entry.address == held.lease.address);
            let is_current = held.lease.node == self.node;
            match protocol::judge(held, &self.node, entry, &mut lives, self.conflict_delay) {
                Verdict::Keep => {}
                Verdict::Foreign => foreign += 1,
                _ if is_current && is_ours(owner) => {}
                Verdict::Delete => match self.ask(&Request::Delete(held.lease.address, held.uid.clone())) {
                    Answer::Gone => swept.freed += 1,
                    _ => swept.left += 1,
                },
                Verdict::Release => swept.count(self.release_for(owner, entry)),
            }
        }
        if foreign > 0 {
            (self.remark)(format_args!(
                "{foreign} leases of node {} were made by another machine with that name, so they stay; \
                 if that machine is gone, free them with lan-pool release",
                self.node.name
            ));
        }
        for page in &pages {
            if locked == Some(&page.owner()) {
                continue;
            }
            if page.boot != self.node.boot {
                self.forget(page)?;
                continue;
            }
            if page.is_gone {
                self.resolve_for(&page.owner(), &leases, true)?;
                continue;
            }
            for entry in page.entries() {
                let listed = leases.iter().any(|held| held.lease.address == entry.address);
                let is_dead = page.netns.is_some_and(|netns| !lives(netns)) && !valid.contains(&page.owner());
                match entry.state {
                    State::Held(_) if is_dead && !listed => {
                        swept.count(self.release_for(Some(&page.owner()), Some(&entry)))
                    }
                    State::Trying if is_dead => swept.count(self.release_for(Some(&page.owner()), Some(&entry))),
                    State::Released(_) if !listed => swept.count(self.release_for(Some(&page.owner()), Some(&entry))),
                    State::Held(ref uid) if !is_dead => {
                        let has_it = |held: &Held| held.lease.address == entry.address && held.uid == *uid;
                        if !leases.iter().any(has_it) {
                            swept.count_restored(self.restore(&page.owner(), &entry));
                        }
                    }
                    _ => {}
                }
            }
        }
        self.journal.set_complete(true)?;
        Ok(swept)
    }

    /// Writes into the page of an owner whose DEL came before the journal was complete that all its leases are released.
    pub(super) fn resolve(&self, page: &mut Page, leases: &[Held]) -> Result<(), Error> {
        let mut entries = page.entries();
        for mut entry in self.page_of(&page.owner(), leases).entries() {
            if let State::Held(uid) = entry.state
                && entries.iter().all(|its| its.address != entry.address)
            {
                entry.state = State::Released(Some(uid));
                entries.push(entry);
            }
        }
        page.is_gone = false;
        page.set_entries(&entries);
        self.journal.set_unsettled();
        self.journal.write(page)
    }

    /// As [`Pool::resolve`], if no call of that owner runs. With `releases`, deletes the leases too.
    fn resolve_for(&self, owner: &Owner, leases: &[Held], releases: bool) -> Result<(), Error> {
        let Some(_lock) = self.journal.lock(owner, Duration::ZERO)? else { return Ok(()) };
        if let Some(mut page) = self.journal.page(owner)?.filter(|page| page.is_gone) {
            self.resolve(&mut page, leases)?;
            if releases {
                self.release_released(&self.claim(&page), &mut page);
            }
        }
        Ok(())
    }

    /// Releases an entry of another owner, if it is still the same, and if no call of that owner runs. Returns true if the
    /// lease is gone.
    pub(super) fn release_for(&self, owner: Option<&Owner>, entry: Option<&Entry>) -> Result<bool, Error> {
        let (Some(owner), Some(entry)) = (owner, entry) else { return Ok(false) };
        let Some(_lock) = self.journal.lock(owner, Duration::ZERO)? else { return Ok(false) };
        let Some(mut page) = self.journal.page(owner)?.filter(|page| page.entries().contains(entry)) else {
            return Ok(false);
        };
        let claim = self.claim(&page);
        match self.give(&claim, &mut page, entry.address) {
            Ok(Ended::Free) => Ok(true),
            Ok(_) => {
                self.journal.set_unsettled();
                Ok(false)
            }
            Err(error) => {
                self.journal.set_unsettled();
                Err(error)
            }
        }
    }

    /// Makes the lease of a living container again. Returns true if the store has it now.
    pub(super) fn restore(&self, owner: &Owner, entry: &Entry) -> Result<bool, Error> {
        let Some(_lock) = self.journal.lock(owner, Duration::ZERO)? else { return Ok(false) };
        let Some(mut page) = self.journal.page(owner)?.filter(|page| page.entries().contains(entry)) else {
            return Ok(false);
        };
        let claim = self.claim(&page);
        let mut take = Take::new(claim, Mode::Restore, page.entries(), Some(entry.address));
        match self.run(&mut take, &mut page, &mut |_, _| Ok(None))? {
            Taken::Held(..) => Ok(true),
            Taken::Elsewhere(other) => {
                (self.remark)(format_args!(
                    "{} is in use by container {owner} of this node, and the store has leased it to {} in the meantime: \
                     two containers may have this address; end one of them",
                    entry.address, other.lease
                ));
                Ok(false)
            }
            Taken::Full => Ok(false),
            Taken::Refused(cause) => Err(Error::Refused { cause }),
        }
    }

    /// Removes a page of an earlier boot. The list of the store has its leases.
    pub(super) fn forget(&self, page: &Page) -> Result<(), Error> {
        let owner = page.owner();
        let Some(_lock) = self.journal.lock(&owner, Duration::ZERO)? else { return Ok(()) };
        match self.journal.page(&owner)? {
            Some(now) if now.boot == page.boot => self.journal.write(&Page::new(&owner, &page.boot)),
            _ => Ok(()),
        }
    }

    /// Makes the pages of living containers again, from the leases of this node. Deletes nothing.
    pub(super) fn recover(&self) -> Result<(), Error> {
        self.recover_with(None)
    }

    /// As [`Pool::recover`], for a call that has the lock of this page.
    pub(super) fn recover_with(&self, mut locked: Option<&mut Page>) -> Result<(), Error> {
        let leases = self.list()?;
        let (pages, _) = self.journal.pages()?;
        for page in pages.iter().filter(|page| page.is_gone && page.boot == self.node.boot) {
            self.resolve_for(&page.owner(), &leases, false)?;
        }
        let mut living = Living::default();
        let mut lives = |netns: u64| living.has(netns);
        for held in &leases {
            let is_locked = |page: &&mut Page| Some(&page.owner()) == held.lease.owner();
            // The namespace of a container can be gone before its DEL.
            let is_deleted = locked.as_ref().is_some_and(is_locked);
            let mut exists = |netns: u64| is_deleted || lives(netns);
            let Some((owner, netns, entry)) = protocol::recovered(held, &self.node, &mut exists) else { continue };
            match locked.as_deref_mut().filter(|page| page.owner() == *owner) {
                Some(page) => self.recover_entry(page, netns, entry)?,
                None => {
                    let Some(_lock) = self.journal.lock(owner, Duration::from_secs(1))? else {
                        return Err(self.busy(owner, 1));
                    };
                    let page = match self.journal.page(owner) {
                        Err(Error::Page { .. }) => None,
                        page => page?.filter(|page| page.boot == self.node.boot),
                    };
                    let mut page = page.unwrap_or_else(|| Page::new(owner, &self.node.boot));
                    self.recover_entry(&mut page, netns, entry)?;
                }
            }
        }
        // Leases of earlier boots are swept by the next call.
        self.journal.set_complete(false)
    }

    pub(super) fn recover_entry(&self, page: &mut Page, netns: Option<u64>, entry: Entry) -> Result<(), Error> {
        let mut entries = page.entries();
        if entries.iter().any(|its| its.address == entry.address) {
            return Ok(());
        }
        entries.push(entry);
        page.netns = page.netns.or(netns);
        page.set_entries(&entries);
        self.journal.write(page)
    }

    /// Releases what earlier calls of other owners could not release: a few pages, if no call of those owners runs.
    pub(super) fn settle(&self, own: &Owner) {
        if !self.journal.is_unsettled() {
            return;
        }
        self.journal.unset_unsettled();
        let Ok((pages, _)) = self.journal.pages() else { return self.journal.set_unsettled() };
        let unsettled = pages.iter().filter(|page| page.is_unsettled() && page.owner() != *own);
        let mut is_left = pages.iter().any(|page| page.is_unsettled() && page.owner() == *own);
        for (at, page) in unsettled.enumerate() {
            if at >= SETTLED_AT_ONCE || Instant::now() >= self.deadline.get() {
                is_left = true;
                break;
            }
            for entry in page.entries().iter().filter(|entry| !entry.state.is_open()) {
                is_left |= !self.release_for(Some(&page.owner()), Some(entry)).unwrap_or(false);
            }
        }
        if is_left {
            self.journal.set_unsettled();
        }
    }

    /// A page with the leases of an owner in this boot.
    pub(super) fn page_of(&self, owner: &Owner, leases: &[Held]) -> Page {
        let mut page = Page::new(owner, &self.node.boot);
        let mut entries = Vec::new();
        for held in leases.iter().filter(|held| held.lease.owner() == Some(owner)) {
            // The container may be gone: its DEL or a sweep decides.
            if let Some((_, netns, entry)) = protocol::recovered(held, &self.node, &mut |_| true) {
                page.netns = page.netns.or(netns);
                entries.push(entry);
            }
        }
        page.set_entries(&entries);
        page
    }

    /// Makes a damaged page again, if no call of its owner runs.
    pub(super) fn mend(&self, owner: &Owner, leases: &[Held]) -> Result<(), Error> {
        let Some(_lock) = self.journal.lock(owner, Duration::ZERO)? else { return Ok(()) };
        match self.journal.page(owner) {
            Err(Error::Page { .. }) => self.journal.write(&self.page_of(owner, leases)),
            _ => Ok(()),
        }
    }
}

impl Swept {
    fn count(&mut self, freed: Result<bool, Error>) {
        match freed {
            Ok(true) => self.freed += 1,
            _ => self.left += 1,
        }
    }

    fn count_restored(&mut self, restored: Result<bool, Error>) {
        match restored {
            Ok(true) => self.restored += 1,
            _ => self.left += 1,
        }
    }
}
