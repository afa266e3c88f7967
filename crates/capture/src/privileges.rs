//! Gives up root once the sockets are open.

use std::io;

use crate::{PrivilegeError, sys};

/// Whom to become where the user names nobody.
const DEFAULT_USER: &str = "nobody";

/// Who the process is after [`drop_privileges`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Privileges {
    /// Real, effective and saved user id.
    pub uid: u32,
    /// Real, effective and saved group id.
    pub gid: u32,
    /// The process was root and became another user.
    pub changed: bool,
}

/// Becomes `user` (`nobody` by default), gives up every capability, and checks that they are gone for good.
///
/// Call it once the sockets and output files are open: files opened later are opened as `user`. A process
/// that is not root keeps its user and gives up its capabilities; to name another user is then an error.
/// Asking for `root` itself is an error too.
///
/// User and groups change for all threads; capabilities and `no_new_privs` are the calling thread's and
/// those of threads it starts later. So call it before starting threads that must not keep capabilities;
/// a process that was root is safe either way, since leaving uid 0 takes them from every thread. That no
/// thread of the process has any is checked at the end.
///
/// # Errors
/// Any failure. The process may then hold part of its privileges and should stop.
pub fn drop_privileges(user: Option<&str>) -> Result<Privileges, PrivilegeError> {
    let ids = call("getresuid", sys::user_ids())?;
    let root = ids.contains(&0);
    let target = if root || user.is_some() {
        let name = user.unwrap_or(DEFAULT_USER);
        let target = call("getpwnam", sys::user_by_name(name))?
            .ok_or_else(|| PrivilegeError::NoUser { user: name.to_owned() })?;
        if target.uid == 0 || target.gid == 0 {
            return Err(PrivilegeError::StillPrivileged { what: "the user to become is root" });
        }
        if !root && ids != [target.uid; 3] {
            return Err(PrivilegeError::NotRoot { user: name.to_owned(), uid: ids[1] });
        }
        Some(target)
    } else {
        None
    };

    call("prctl(PR_SET_NO_NEW_PRIVS)", sys::set_no_new_privs())?;
    if let Some(target) = target.filter(|_| root) {
        // Capabilities are numbered without holes; 64 is the most that the kernel's two words can hold.
        for capability in 0..64 {
            if !call("prctl(PR_CAPBSET_DROP)", sys::drop_from_bounding_set(capability))? {
                break;
            }
        }
        // Groups first: they can't be changed once the user is.
        call("setgroups", sys::set_groups(target.gid))?;
        call("setresgid", sys::set_group(target.gid))?;
        call("setresuid", sys::set_user(target.uid))?;
    }
    call("prctl(PR_CAP_AMBIENT_CLEAR_ALL)", sys::clear_ambient())?;
    call("capset", sys::clear_capabilities())?;
    verify(root)
}

fn call<T>(call: &'static str, result: io::Result<T>) -> Result<T, PrivilegeError> {
    result.map_err(|source| PrivilegeError::Call { call, source })
}

/// Checks that nothing is left and that nothing comes back.
fn verify(was_root: bool) -> Result<Privileges, PrivilegeError> {
    let left = |what| Err(PrivilegeError::StillPrivileged { what });
    if sys::set_user(0).is_ok() {
        return left("the process could become root again");
    }
    if was_root && sys::set_group(0).is_ok() {
        return left("the process could take root's group again");
    }
    let (users, groups) = (call("getresuid", sys::user_ids())?, call("getresgid", sys::group_ids())?);
    if users.contains(&0) || users != [users[0]; 3] {
        return left("a user id");
    }
    if was_root && groups != [groups[0]; 3] {
        return left("a group id");
    }
    for task in call("reading /proc/self/task", std::fs::read_dir("/proc/self/task"))? {
        let path = call("reading /proc/self/task", task)?.path().join("status");
        // A thread that ended meanwhile has no privileges.
        let Ok(status) = std::fs::read_to_string(path) else { continue };
        let sets = ["CapPrm:", "CapEff:", "CapAmb:"];
        let rows = status.lines().filter_map(|l| l.split_once('\t'));
        if rows.filter(|(name, _)| sets.contains(name)).any(|(_, v)| v.trim().bytes().any(|b| b != b'0')) {
            return left("capabilities of a thread");
        }
    }
    Ok(Privileges { uid: users[0], gid: groups[0], changed: was_root })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Marks the process that really gives up its privileges.
    const CHILD: &str = "OFFPATH_TEST_DROP_CHILD";

    #[test]
    fn unknown_users_and_root_are_refused_before_anything_changes() {
        let before = sys::user_ids().unwrap();
        assert!(matches!(drop_privileges(Some("no-such-user-here")), Err(PrivilegeError::NoUser { .. })));
        assert!(matches!(drop_privileges(Some("root")), Err(PrivilegeError::StillPrivileged { .. })));
        assert_eq!(sys::user_ids().unwrap(), before);
    }

    /// Runs itself again as a child process, since there is no way back.
    ///
    /// `cargo test -p offpath-capture -- --ignored drops_root`
    #[test]
    #[ignore = "needs root: run by make unit-root"]
    fn drops_root_for_good() {
        if std::env::var_os(CHILD).is_none() {
            let status = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "privileges::tests::drops_root_for_good", "--ignored"])
                .env(CHILD, "1")
                .status()
                .unwrap();
            assert!(status.success());
            return;
        }
        assert_eq!(sys::user_ids().unwrap(), [0; 3], "run as root");
        let (send, wait) = std::sync::mpsc::sync_channel::<()>(0);
        let other = std::thread::spawn(move || {
            let _ = wait.recv();
            std::fs::File::open("/etc/shadow").is_err()
        });
        let got = drop_privileges(None).unwrap();
        let nobody = sys::user_by_name("nobody").unwrap().unwrap();
        assert_eq!(got, Privileges { uid: nobody.uid, gid: nobody.gid, changed: true });
        assert!(std::fs::File::open("/etc/shadow").is_err(), "root's files are closed to us");
        drop(send);
        assert!(other.join().unwrap(), "to threads that ran before, too");
        let groups = std::fs::read_to_string("/proc/self/status").unwrap();
        let row = groups.lines().find(|l| l.starts_with("Groups:")).unwrap();
        assert_eq!(row.split_whitespace().skip(1).collect::<Vec<_>>(), [nobody.gid.to_string()]);
        // A second time changes nothing and succeeds.
        assert_eq!(drop_privileges(None).unwrap(), Privileges { changed: false, ..got });
    }
}
