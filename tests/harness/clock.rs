//! Wrong clocks: a library that tells the programs which load it another time of day. CLOCK_BOOTTIME stays right.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::process;

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long ahead(void) { const char *s = getenv("WALDEN_TEST_AHEAD"); return s ? atol(s) : 0; }
int clock_gettime(clockid_t id, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int r = real(id, t);
    if (r == 0 && id == CLOCK_REALTIME) t->tv_sec += ahead();
    return r;
}
int gettimeofday(struct timeval *restrict v, void *restrict z) {
    struct timespec t;
    (void)z;
    if (clock_gettime(CLOCK_REALTIME, &t)) return -1;
    v->tv_sec = t.tv_sec; v->tv_usec = t.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *out) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (out) *out = t.tv_sec;
    return t.tv_sec;
}
"#;

/// The environment of a program whose clock is so many seconds ahead.
pub fn clock_ahead(seconds: i64) -> [(&'static str, String); 2] {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    let library = LIBRARY.get_or_init(build);
    [
        ("LD_PRELOAD", library.display().to_string()),
        ("WALDEN_TEST_AHEAD", seconds.to_string()),
    ]
}

/// Built by the C compiler that the build needs, too, in a folder without spaces: they part names in LD_PRELOAD.
fn build() -> PathBuf {
    let folder = process::shared_folder();
    let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
    std::fs::write(&source, SOURCE).expect("write the library's source");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .output()
        .expect("run cc");
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{said}");
    library
}
