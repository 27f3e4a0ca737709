//! What the allocator keeps. glibc keeps freed memory for the next allocation, up to what was once in use; a service
//! that idles between bursts shall not.

/// Buffers are mapped, so that freeing gives them back at once; and few arenas hold what is small.
pub fn give_back_early() {
    #[cfg(target_env = "gnu")]
    {
        const MAPPED_FROM_BYTES: i32 = 128 << 10;
        const ARENAS: i32 = 2;
        // SAFETY: mallopt has no memory to get wrong; an unknown option is ignored.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM_BYTES);
            libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        }
    }
}

/// Gives back what small allocations left free.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}
