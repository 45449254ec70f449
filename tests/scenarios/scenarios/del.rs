//! DEL gives everything back, however late, often, or blindly it is called.

use zerobridge_lab::{CniCall, Lab};

use crate::expect;
use crate::group::{Group, Outcome};
use crate::hand::{Attached, ledger, remove_sandbox};

pub(crate) const GROUP: Group = Group {
    name: "del",
    vm: "pods",
    scenarios: &[
        ("twice", twice),
        ("after_the_sandbox_is_gone", after_the_sandbox_is_gone),
        ("after_the_sandbox_is_gone_and_without_its_path", after_the_sandbox_is_gone_and_without_its_path),
        ("without_the_path_of_a_living_sandbox", without_the_path_of_a_living_sandbox),
        (
            "of_a_container_that_owns_nothing_touches_nothing",
            of_a_container_that_owns_nothing_touches_nothing,
        ),
        ("a_late_del_of_the_old_sandbox_leaves_the_new_one_alone", a_late_del_of_the_old_sandbox),
    ],
};

fn twice(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let guest = lab.install_plugins()?;
    let device = guest.vf(1, 0)?;
    let attached = Attached::new(guest, "twice", device)?;
    for _ in 0..2 {
        guest.cni_success(&attached.del())?;
        expect::as_before(guest, &before)?;
        expect::equal("what the ledger has", &attached.promises(guest)?, &(0, 0))?;
    }
    remove_sandbox(guest, attached.name)
}

fn after_the_sandbox_is_gone(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let guest = lab.install_plugins()?;
    // One VF whose address the PF imposed, one whose address its driver chose.
    for index in [0, 1] {
        let device = guest.vf(1, index)?;
        let attached = Attached::new(guest, "gone", device)?;
        remove_sandbox(guest, attached.name)?;
        guest.cni_success(&attached.del())?;
        expect::as_before(guest, &before)?;
        expect::equal("what the ledger has", &attached.promises(guest)?, &(0, 0))?;
    }
    Ok(())
}

fn after_the_sandbox_is_gone_and_without_its_path(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let guest = lab.install_plugins()?;
    let device = guest.vf(2, 0)?;
    let attached = Attached::new(guest, "blind", device)?;
    remove_sandbox(guest, attached.name)?;
    let mut del = attached.del();
    del.netns.clear();
    guest.cni_success(&del)?;
    expect::as_before(guest, &before)?;
    expect::equal("what the ledger has", &attached.promises(guest)?, &(0, 0))
}

fn without_the_path_of_a_living_sandbox(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let guest = lab.install_plugins()?;
    let device = guest.vf(2, 1)?;
    let attached = Attached::new(guest, "alive", device)?;
    let mut del = attached.del();
    del.netns.clear();
    guest.cni_success(&del)?;
    expect::as_before(guest, &before)?;
    expect::equal("what the ledger has", &attached.promises(guest)?, &(0, 0))?;
    remove_sandbox(guest, attached.name)
}

fn of_a_container_that_owns_nothing_touches_nothing(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let guest = lab.install_plugins()?;
    let device = guest.vf(1, 2)?;
    let attached = Attached::new(guest, "owner", device)?;
    let (state, records) = (guest.snapshot()?, ledger(guest)?);
    let mut del = attached.del();
    del.container = "stranger".into();
    guest.cni_success(&del)?;
    expect::as_before(guest, &state)?;
    expect::equal("the ledger", &ledger(guest)?, &records)?;
    guest.cni_success(&attached.del())?;
    remove_sandbox(guest, attached.name)?;
    expect::as_before(guest, &before)
}

/// The VF goes from one pod to the next, with and without a DEL between, and only then, and again, the runtime remembers
/// the first pod: without its namespace, with the path that it had, and with that path when it is the next pod's.
fn a_late_del_of_the_old_sandbox(lab: &mut Lab) -> Outcome {
    let before = lab.pristine();
    let guest = lab.install_plugins()?;
    let device = guest.vf(2, 0)?;
    for deleted_in_time in [true, false] {
        let old = Attached::new(guest, "old", device)?;
        if deleted_in_time {
            guest.cni_success(&old.del())?;
        }
        remove_sandbox(guest, old.name)?;
        let new = Attached::new(guest, "new", device)?;
        let (state, records) = (guest.snapshot()?, ledger(guest)?);
        for netns in ["", "/run/netns/old", "/run/netns/new"] {
            guest.cni_success(&CniCall { netns: netns.into(), ..old.del() })?;
            expect::as_before(guest, &state)?;
            expect::equal("the ledger", &ledger(guest)?, &records)?;
        }
        guest.cni_success(&new.check())?;
        guest.cni_success(&new.del())?;
        remove_sandbox(guest, new.name)?;
        expect::as_before(guest, &before)?;
    }
    Ok(())
}
