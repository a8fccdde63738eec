//! Raw memory of a table part: a region reserved once, whose pages appear as they are touched.
//!
//! What it is: [`Region`], a run of 64-byte lines that never moves and holds no pointers, so that a
//! copy of it (a snapshot, a hand-over to another process) is the table itself. It owns one mapping
//! and its memfd. Only the row, blob and index stores of `table/` use it. Rule: all bytes are
//! reached through bounds-checked slices; the `unsafe` here is the mapping itself and prefetching.
//!
//! Where memfd is refused the memory is anonymous; under Miri it is a vector. Huge pages are asked
//! for once a region is large enough not to waste one (design.md section 6).

use rustix::fd::OwnedFd;
use std::fmt;
use std::hash::Hasher;
use std::sync::OnceLock;
use thiserror::Error;

/// Bytes of a line: what the processor fetches at once, and the unit of alignment.
pub const LINE: usize = 64;
/// Size of a huge page on the machines we run on.
const HUGE: usize = 2 * 1024 * 1024;
/// Size of a small page.
const PAGE: usize = 4096;
/// Lines of a region that [`Region::sample`] reads.
const SAMPLES: usize = 256;
/// Regions below this get their pages one by one, as they are touched: small tables stay small.
#[cfg(not(miri))]
const POPULATE_FROM: usize = 1024 * 1024;

/// One cache line of a region.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Line(pub [u8; LINE]);

/// Memory that could not be had.
///
/// *Effect:* the table is not created, or the insert that needed it evicts or is refused and
/// counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MemoryError {
    /// The address space for a table of this size was refused.
    #[error("cannot reserve {bytes} bytes of address space for {name}: {errno}")]
    Reserve {
        /// What it was for.
        name: &'static str,
        /// How much was asked for.
        bytes: usize,
        /// Why not.
        errno: rustix::io::Errno,
    },
    /// The kernel has no pages left for it (a memory cgroup's limit, usually).
    #[error("no memory for {name} beyond {bytes} bytes: {errno}")]
    Exhausted {
        /// What it was for.
        name: &'static str,
        /// How much it has.
        bytes: usize,
        /// Why not.
        errno: rustix::io::Errno,
    },
    /// The region is full: more rows than its table was declared to hold.
    #[error("{name} is full at {bytes} bytes")]
    Full {
        /// What it was for.
        name: &'static str,
        /// Its size.
        bytes: usize,
    },
}

/// Where a region's pages come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// A memfd, which another process can be given.
    Memfd,
    /// Private anonymous memory: chosen, or memfd was refused.
    Anonymous,
    /// A vector (Miri).
    Heap,
}

/// What new regions are made of; memfd when nobody has chosen.
static CHOSEN: OnceLock<Backing> = OnceLock::new();

/// Chooses what the regions of this process are made of: once, before the first one. Anonymous
/// memory can have huge pages where a memfd cannot, but no other process can be given it.
pub fn choose(backing: Backing) {
    // A second choice would be a mistake of the start-up order; the first one stands.
    let _ = CHOSEN.set(backing);
}

/// What was chosen.
pub fn chosen() -> Backing {
    CHOSEN.get().copied().unwrap_or(Backing::Memfd)
}

/// See the module's head.
pub struct Region {
    name: &'static str,
    /// Bytes that may be used now; a multiple of a line.
    len: usize,
    /// Bytes reserved; `len` never exceeds it.
    max: usize,
    store: store::Store,
}

// Only what the slices below need differs between the two stores: `base` is aligned to a line and
// valid for `len` bytes, all of them initialised (fresh pages are zero).
impl Region {
    /// Reserves address space for `max_bytes` (rounded up to whole lines). Nothing is committed
    /// yet.
    pub fn reserve(name: &'static str, max_bytes: usize) -> Result<Region, MemoryError> {
        let refused = |errno| MemoryError::Reserve { name, bytes: max_bytes, errno };
        let max = Region::rounded(max_bytes).ok_or(refused(rustix::io::Errno::NOMEM))?;
        let store = store::Store::reserve(name, max).map_err(refused)?;
        Ok(Region { name, len: 0, max, store })
    }

    fn rounded(max_bytes: usize) -> Option<usize> {
        let max = max_bytes.max(LINE).checked_next_multiple_of(HUGE);
        max.filter(|&m| m <= isize::MAX as usize)
    }

    /// The region of another process, of which `len` bytes are used. It is only read until the
    /// first write here; the other process must not write any more.
    ///
    /// # Errors
    /// The memory is not that of a region for `max_bytes`, or cannot be mapped.
    pub fn adopt(
        name: &'static str,
        max_bytes: usize,
        len: usize,
        memory: OwnedFd,
    ) -> Result<Region, MemoryError> {
        let refused = |errno| MemoryError::Reserve { name, bytes: max_bytes, errno };
        let max = Region::rounded(max_bytes).filter(|&max| len <= max && len.is_multiple_of(LINE));
        let max = max.ok_or(refused(rustix::io::Errno::INVAL))?;
        let store = store::Store::adopt(memory, max).map_err(refused)?;
        Ok(Region { name, len, max, store })
    }

    /// A descriptor of the memory for another process; `None` unless it is a memfd.
    pub fn share(&self) -> Option<OwnedFd> {
        self.store.share()
    }

    /// A checksum of the length and of some lines all over the region: two mappings that agree are
    /// of the same memory. Takes the same time whatever the size.
    pub fn sample(&self) -> u64 {
        let mut hash = twox_hash::XxHash64::with_seed(self.len as u64);
        let step = (self.len / SAMPLES).next_multiple_of(LINE).max(LINE);
        self.bytes().chunks(step).for_each(|part| hash.write(&part[..LINE.min(part.len())]));
        hash.finish()
    }

    /// Makes `len` bytes usable; new ones are zero. Never moves or shrinks anything. Large regions
    /// get their new pages here, all at once, which costs less than a fault for each.
    pub fn grow_to(&mut self, len: usize) -> Result<(), MemoryError> {
        let Some(len) = len.checked_next_multiple_of(LINE).filter(|&l| l <= self.max) else {
            return Err(MemoryError::Full { name: self.name, bytes: self.max });
        };
        if len > self.len {
            let exhausted = |errno| {
                let bytes = self.len;
                MemoryError::Exhausted { name: self.name, bytes, errno }
            };
            self.store.commit(self.len, len).map_err(exhausted)?;
            self.len = len;
        }
        Ok(())
    }

    /// Like [`Region::grow_to`], a step further: a sixteenth of what there is, at least 64 KiB, and
    /// a huge page where there are any, so that growing row by row is rare.
    pub fn grow_ahead(&mut self, len: usize) -> Result<(), MemoryError> {
        let step = match self.len {
            len if len < 2 * HUGE => (len / 16).max(64 * 1024),
            _ => HUGE,
        };
        self.grow_to(len.next_multiple_of(step).min(self.max).max(len))
    }

    /// Gives the memory of a range back; its bytes read as zero afterwards. Parts of pages at both
    /// ends are cleared by hand.
    pub fn release(&mut self, range: std::ops::Range<usize>) {
        let range = range.start..range.end.min(self.len);
        if range.is_empty() {
            return;
        }
        let first = range.start.next_multiple_of(PAGE);
        let last = range.end / PAGE * PAGE;
        if first < last && self.store.discard(first..last) {
            self.bytes_mut()[range.start..first].fill(0);
            self.bytes_mut()[last..range.end].fill(0);
        } else {
            self.bytes_mut()[range].fill(0);
        }
    }

    /// What it is for.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Bytes in use.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True before the first [`Region::grow_to`].
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes reserved.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Where the pages come from.
    pub fn backing(&self) -> Backing {
        self.store.backing()
    }

    /// Everything usable.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `base` is valid for reads of `len <= max` initialised bytes while `self` lives:
        // the store is never unmapped or moved before drop (the heap store re-reads its pointer),
        // and writes need `&mut self`. Another process maps the memfd only during a hand-over, in
        // which at most one of the two goes on to write (`coordinator::instant`).
        unsafe { std::slice::from_raw_parts(self.store.base(), self.len) }
    }

    /// Everything usable, for writing.
    #[inline(always)]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `&mut self` makes the borrow unique.
        unsafe { std::slice::from_raw_parts_mut(self.store.base_mut(), self.len) }
    }

    /// Line number `i`. Panics beyond [`Region::len`], as a slice does.
    #[inline(always)]
    pub fn line(&self, i: usize) -> &Line {
        assert!(i < self.len / LINE);
        // SAFETY: in bounds by the assertion; `base` is aligned to a line (pages, or a vector of
        // lines), and any 64 bytes are a valid `Line`.
        unsafe { &*self.store.base().cast::<Line>().add(i) }
    }

    /// Line number `i`, for writing.
    #[inline(always)]
    pub fn line_mut(&mut self, i: usize) -> &mut Line {
        assert!(i < self.len / LINE);
        // SAFETY: as in `line`, and `&mut self` makes the borrow unique.
        unsafe { &mut *self.store.base_mut().cast::<Line>().add(i) }
    }

    /// Asks the processor to fetch the line at `offset`; harmless wherever it points.
    #[inline(always)]
    pub fn prefetch(&self, offset: usize) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let at = self.store.base().wrapping_add(offset);
            // SAFETY: prefetching is a hint; it never faults, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        let _ = offset;
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("name", &self.name)
            .field("len", &self.len)
            .field("max", &self.max)
            .field("backing", &self.backing())
            .finish()
    }
}

#[cfg(not(miri))]
mod store {
    use super::{Backing, HUGE, PAGE, POPULATE_FROM, chosen};
    use rustix::fd::OwnedFd;
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};
    use rustix::io::Errno;
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
    use rustix::process::{Resource, getrlimit};
    use std::ops::Range;
    use std::ptr::{self, NonNull};

    /// Addresses for `max` bytes that start at a huge page's boundary, as a file's huge pages must.
    fn reserve_aligned(max: usize) -> Result<NonNull<u8>, Errno> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let len = max.checked_add(HUGE).ok_or(Errno::NOMEM)?;
        // SAFETY: a new inaccessible mapping at an address of the kernel's choice overlaps nothing.
        // What is cut off below lies within it, before and behind the part that stays.
        unsafe {
            let start = mmap_anonymous(ptr::null_mut(), len, ProtFlags::empty(), flags)?;
            let start = start.cast::<u8>();
            let before = start.align_offset(HUGE);
            let base = start.add(before);
            if before > 0 {
                munmap(start.cast(), before)?;
            }
            if before < HUGE {
                munmap(base.add(max).cast(), HUGE - before)?;
            }
            NonNull::new(base).ok_or(Errno::NOMEM)
        }
    }

    /// A mapping of `max` bytes.
    pub struct Store {
        base: NonNull<u8>,
        max: usize,
        file: Option<OwnedFd>,
        advised: usize,
    }

    // SAFETY: the mapping belongs to this value alone, like a `Vec`'s buffer; nothing in it is tied
    // to a thread, and shared access is only through `&self` reads.
    unsafe impl Send for Store {}
    // SAFETY: as above; `&Store` allows nothing but reading.
    unsafe impl Sync for Store {}

    impl Store {
        pub fn reserve(name: &str, max: usize) -> Result<Store, Errno> {
            // Beyond the file size limit, sizing the file would not fail but kill the process.
            let limit = getrlimit(Resource::Fsize).current;
            let sizable = limit.is_none_or(|l| l >= max as u64);
            let wanted = sizable && chosen() == Backing::Memfd;
            let file = wanted
                .then(|| memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).ok())
                .flatten();
            let file = file.filter(|f| ftruncate(f, max as u64).is_ok());
            let base = reserve_aligned(max)?;
            let prot = ProtFlags::READ | ProtFlags::WRITE;
            let at = base.as_ptr().cast();
            let mapped = file.as_ref().map(|f| {
                let flags = MapFlags::SHARED | MapFlags::NORESERVE | MapFlags::FIXED;
                // SAFETY: it replaces exactly the addresses reserved above, which nobody else
                // knows. The file is `max` bytes long and never truncated: no access faults.
                unsafe { mmap(at, max, prot, flags, f, 0) }
            });
            let mut store = Store { base, max, file, advised: 0 };
            if !matches!(mapped, Some(Ok(_))) {
                store.file = None;
                let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
                // SAFETY: as above; private memory needs no file.
                unsafe { mmap_anonymous(at, max, prot, flags)? };
            }
            Ok(store)
        }

        /// Maps another process's file of `max` bytes.
        pub fn adopt(file: OwnedFd, max: usize) -> Result<Store, Errno> {
            if fstat(&file)?.st_size as usize != max {
                return Err(Errno::INVAL);
            }
            // Nobody can make it shorter any more, or an access would end the process.
            fcntl_add_seals(&file, SealFlags::SHRINK)?;
            let base = reserve_aligned(max)?;
            let prot = ProtFlags::READ | ProtFlags::WRITE;
            let flags = MapFlags::SHARED | MapFlags::NORESERVE | MapFlags::FIXED;
            // SAFETY: it replaces exactly the addresses just reserved, which nobody else knows, and
            // the file is as long as that for good.
            unsafe { mmap(base.as_ptr().cast(), max, prot, flags, &file, 0)? };
            Ok(Store { base, max, file: Some(file), advised: 0 })
        }

        /// Another descriptor of the file.
        pub fn share(&self) -> Option<OwnedFd> {
            self.file.as_ref()?.try_clone().ok()
        }

        /// Called before `old..new` becomes usable: asks for huge pages where whole ones fit (a
        /// region below two of them stays in small pages, so that many small tables stay small),
        /// then has the pages made. Kernels before 5.14 cannot do the latter: they make them when
        /// touched.
        pub fn commit(&mut self, old: usize, new: usize) -> Result<(), Errno> {
            // The whole of the last one, or its first pages would be small ones and stay so.
            let end = new.next_multiple_of(HUGE);
            if new >= 2 * HUGE && end > self.advised {
                // SAFETY: the range lies within the mapping; the advice changes no contents.
                let _ = unsafe {
                    let at = self.base.as_ptr().add(self.advised);
                    madvise(at.cast(), end - self.advised, Advice::LinuxHugepage)
                };
                self.advised = end;
            }
            if new < POPULATE_FROM {
                return Ok(());
            }
            let from = old / PAGE * PAGE;
            // SAFETY: the range lies within the mapping; making pages present changes no contents.
            let made = unsafe {
                let at = self.base.as_ptr().add(from);
                madvise(at.cast(), new - from, Advice::LinuxPopulateWrite)
            };
            match made {
                Err(Errno::NOMEM | Errno::FAULT) => Err(Errno::NOMEM),
                _ => Ok(()),
            }
        }

        /// Drops whole pages; false when the kernel refused and the caller must clear them.
        pub fn discard(&mut self, range: Range<usize>) -> bool {
            debug_assert!(range.end <= self.max);
            let advice =
                if self.file.is_some() { Advice::LinuxRemove } else { Advice::LinuxDontNeed };
            // SAFETY: the range lies within the mapping and is page aligned; `&mut self` means
            // nobody holds a reference into it. The pages read as zero afterwards.
            unsafe {
                let at = self.base.as_ptr().add(range.start);
                madvise(at.cast(), range.len(), advice).is_ok()
            }
        }

        pub fn backing(&self) -> Backing {
            if self.file.is_some() { Backing::Memfd } else { Backing::Anonymous }
        }

        #[inline(always)]
        pub fn base(&self) -> *const u8 {
            self.base.as_ptr()
        }

        #[inline(always)]
        pub fn base_mut(&mut self) -> *mut u8 {
            self.base.as_ptr()
        }
    }

    impl Drop for Store {
        fn drop(&mut self) {
            // SAFETY: the mapping was made by `reserve` with this length, and references into it
            // cannot outlive `self`.
            let _ = unsafe { munmap(self.base.as_ptr().cast(), self.max) };
        }
    }
}

#[cfg(miri)]
mod store {
    use super::{Backing, LINE, Line};
    use rustix::fd::OwnedFd;
    use rustix::io::Errno;
    use std::ops::Range;

    /// Lines of a vector: what Miri can check.
    pub struct Store(Vec<Line>);

    impl Store {
        pub fn reserve(_name: &str, _max: usize) -> Result<Store, Errno> {
            Ok(Store(Vec::new()))
        }

        pub fn adopt(_file: OwnedFd, _max: usize) -> Result<Store, Errno> {
            Err(Errno::NOSYS)
        }

        pub fn share(&self) -> Option<OwnedFd> {
            None
        }

        pub fn commit(&mut self, _old: usize, new: usize) -> Result<(), Errno> {
            self.0.resize(new / LINE, Line([0; LINE]));
            Ok(())
        }

        pub fn discard(&mut self, _range: Range<usize>) -> bool {
            false
        }

        pub fn backing(&self) -> Backing {
            Backing::Heap
        }

        pub fn base(&self) -> *const u8 {
            self.0.as_ptr().cast()
        }

        pub fn base_mut(&mut self) -> *mut u8 {
            self.0.as_mut_ptr().cast()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_appear_on_touch_and_go_when_released() {
        let mut r = Region::reserve("test", 64 << 30).expect("address space");
        assert!(cfg!(miri) || r.bytes().as_ptr().align_offset(HUGE) == 0);
        assert_eq!(r.bytes(), &[] as &[u8]);
        const N: usize = if cfg!(miri) { 1_000 } else { 100_000 };
        r.grow_to(N).unwrap();
        assert_eq!(r.len() % LINE, 0);
        assert!(r.bytes().iter().all(|&b| b == 0));
        r.bytes_mut().fill(7);
        r.release(100..N / 2);
        assert!(r.bytes()[..100].iter().all(|&b| b == 7));
        assert!(r.bytes()[100..N / 2].iter().all(|&b| b == 0));
        assert!(r.bytes()[N / 2..].iter().all(|&b| b == 7));
        r.line_mut(3).0[5] = 9;
        assert_eq!(r.bytes()[3 * LINE + 5], 9);
        assert_eq!(r.line(3).0[5], 9);
        r.prefetch(0);
    }

    #[test]
    fn growing_beyond_the_reservation_is_an_error() {
        let mut r = Region::reserve("test", 1).unwrap();
        assert_eq!(r.grow_to(r.max()), Ok(()));
        let max = r.max();
        assert_eq!(r.grow_to(max + 1), Err(MemoryError::Full { name: "test", bytes: max }));
        assert_eq!(r.grow_to(usize::MAX), Err(MemoryError::Full { name: "test", bytes: max }));
    }

    #[test]
    #[cfg(not(miri))]
    fn absurd_reservations_are_refused_not_aborted() {
        assert!(matches!(Region::reserve("t", usize::MAX), Err(MemoryError::Reserve { .. })));
        assert!(matches!(Region::reserve("t", 1 << 60), Err(MemoryError::Reserve { .. })));
    }
}
