//! What an ADD promises before it changes anything: the addresses, and the record that says whose the VF is.
//!
//! Addresses of the pool are leased in the transaction that writes the record, and replaced in one with it when foreign
//! hosts have them. Another program is asked when the VF is in
//! the sandbox and up, since one like dhcp talks through it, and while nothing is held but the VF. The record names the
//! program before it is asked, so that whoever finds it after a crash knows whom to tell, and gets its answer after, so
//! that a repeated ADD does not ask again. Refuses to know the kernel.

use zerobridge_ipam::{Foreign, LeaseRequest, Leased, PoolConfig};
use zerobridge_kernel::Route;
use zerobridge_ledger::{Attachment, Ledger, LedgerError, Sandbox, Transaction};
use zerobridge_proto::cni::{AddResult, CniError, Command, Dns, Ip};

use crate::attachment::{VfState, Wish, wanted};
use crate::call::Call;
use crate::codes;
use crate::config::Ipam;
use crate::delegate::{Delegate, Delegation};
use crate::failure::{attachment_error, ledger_error, record_error, repair_error};
use crate::record;
use crate::repairer::Repairer;
use crate::selection::Selection;

/// Who gives the addresses, with all that can be judged before the first change.
#[derive(Debug)]
pub(crate) enum Source<'a> {
    /// Nobody: the network has none.
    Nobody,
    /// The pool in this process.
    Pool(Box<PoolSource<'a>>),
    /// Another program.
    Other(Delegate),
}

/// The pool in this process, and what is asked of it.
#[derive(Debug)]
pub(crate) struct PoolSource<'a> {
    /// The pool.
    pub pool: &'a PoolConfig,
    /// Who asks, and for which addresses.
    pub request: LeaseRequest,
    /// The pool's name resolution.
    pub dns: Dns,
}

/// One ADD of a locked VF, whose namespace has been found fit.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    /// The call.
    pub call: &'a Call<'a>,
    /// What takes the attempt back when it fails.
    pub repairer: &'a Repairer,
    /// The VF, its network, and what is to be made of it.
    pub wish: Wish<'a>,
    /// Who gives the addresses.
    pub source: Source<'a>,
    /// Where the VF is to go.
    pub sandbox: Sandbox,
    /// What DEL is to restore.
    pub original: &'a VfState,
    /// The record of this very interface, when the ADD is a repetition.
    pub existing: Option<&'a Attachment>,
}

/// What is in the ledger now.
#[derive(Debug)]
pub(crate) struct Promise {
    /// The record.
    pub record: Attachment,
    /// What the record wants of the VF.
    pub wanted: VfState,
    /// The addresses and what came with them.
    pub leased: Leased,
    /// Another program has yet to be asked for the addresses.
    is_unanswered: bool,
}

impl<'a> Source<'a> {
    /// The source of `selection`'s network.
    ///
    /// # Errors
    /// Addresses asked for that are none, name servers that cannot be read, or a program that is not there.
    pub(crate) fn of(call: &Call<'_>, selection: Selection<'a>) -> Result<Self, CniError> {
        let Selection { device, network } = selection;
        Ok(match &network.ipam {
            None => Self::Nobody,
            Some(Ipam::Delegated(plugin)) => {
                let delegate = Delegate::of_call(call, &network.name, plugin);
                delegate.require()?;
                Self::Other(delegate)
            }
            Some(Ipam::Own(pool)) => {
                let request = LeaseRequest {
                    owner: call.owner(),
                    pod: call.pod(),
                    device: Some(device),
                    mac: None,
                    vlan: None,
                    rdma: None,
                    requested: call.config.requested_ips(&call.environment.args)?,
                    now: call.now,
                    boot_id: call.boot_id.clone(),
                };
                Self::Pool(Box::new(PoolSource { pool, request, dns: pool.name_resolution()? }))
            }
        })
    }

    /// The same source, whose request says what an audit of the lease compares: that depends on what the VF was before.
    /// Found out once, and before anybody waits for the ledger.
    ///
    /// # Errors
    /// What the network wants cannot be had of the VF.
    pub(crate) fn carried_by(mut self, wish: Wish<'_>, original: &VfState) -> Result<Self, CniError> {
        let wanted = wanted(wish, original, Vec::new(), Vec::new()).map_err(attachment_error)?;
        if let Self::Pool(source) = &mut self {
            let request = &mut source.request;
            request.mac = wanted.mac();
            request.vlan = wanted.admin.map(|admin| admin.vlan.id).filter(|id| *id != 0);
            request.rdma = wanted.rdma.map(|rdma| rdma.name);
        }
        Ok(self)
    }
}

impl Attempt<'_> {
    /// Writes the promise down.
    ///
    /// # Errors
    /// No address, or no ledger; nothing is promised then.
    pub(crate) fn promise(&self, ledger: &mut Ledger) -> Result<Promise, CniError> {
        let held = self.existing.map(record::delegation).transpose().map_err(record_error)?.flatten();
        let other_plugin = match (&self.source, &held) {
            (_, None) => false,
            (Source::Other(delegate), Some(held)) => !delegate.is_that_of(held),
            (_, Some(_)) => true,
        };
        if other_plugin {
            let msg = format!("{} is attached with addresses of another IPAM plugin", self.call.owner());
            return Err(CniError::new(codes::INTERFACE_EXISTS, msg)
                .with_details("its configuration was changed since; DEL it first"));
        }
        match (&self.source, held) {
            (Source::Nobody, _) => self.write(ledger, Leased::default(), None),
            (Source::Pool(source), _) => {
                let transaction = ledger.begin().map_err(ledger_error)?;
                self.lease(source, transaction).map_err(|(failure, _)| failure)
            }
            (Source::Other(delegate), Some(Delegation { result: Some(answer), .. })) => {
                self.write_answer(ledger, delegate, answer)
            }
            (Source::Other(delegate), unanswered) => {
                // An ADD died while the program worked, and nobody knows what became of it.
                if unanswered.is_some() {
                    delegate.forward(Command::Del)?;
                }
                let promise = self.write(ledger, Leased::default(), Some(&delegate.to_record(None)))?;
                Ok(Promise { is_unanswered: true, ..promise })
            }
        }
    }

    /// Asks another program for the addresses, when they come from one and it has not answered yet, and writes its answer
    /// down. `None` when nothing is to be asked. The VF must be in the sandbox and up.
    ///
    /// # Errors
    /// The program's, or the ledger's; the caller takes the attempt back.
    pub(crate) fn ask(&self, ledger: &mut Ledger, promise: &Promise) -> Result<Option<Promise>, CniError> {
        match &self.source {
            Source::Other(delegate) if promise.is_unanswered => {
                self.write_answer(ledger, delegate, delegate.add()?).map(Some)
            }
            Source::Other(_) | Source::Nobody | Source::Pool(_) => Ok(None),
        }
    }

    /// The pool, when the addresses come from one.
    pub(crate) fn pool_source(&self) -> Option<&PoolSource<'_>> {
        match &self.source {
            Source::Pool(source) => Some(source),
            Source::Other(_) | Source::Nobody => None,
        }
    }

    /// Sets addresses aside that foreign hosts have, and promises others in their place, in one transaction. Addresses that
    /// were asked for are not replaced, nor are any when `is_last`.
    ///
    /// # Errors
    /// Code 108 with the addresses and who has them when they are not replaced; the pool's when no other address is free;
    /// the ledger's. Unless the ledger failed, the addresses are set aside then all the same, and the caller takes the
    /// attempt back.
    pub(crate) fn replace(
        &self,
        source: &PoolSource<'_>,
        ledger: &mut Ledger,
        found: &[Foreign],
        is_last: bool,
    ) -> Result<Promise, CniError> {
        let LeaseRequest { owner, requested, now, .. } = &source.request;
        let network = &self.wish.network.name;
        let holders: Vec<String> =
            found.iter().map(|Foreign { address, mac }| format!("{mac} has {address}")).collect();
        let holders = format!("on the link of network {network}, {}", holders.join(" and "));
        let mut transaction = ledger.begin().map_err(ledger_error)?;
        zerobridge_ipam::set_aside(&mut transaction, owner, network, found, *now)?;
        let refusal = if found.iter().any(|foreign| requested.contains(&foreign.address)) {
            Some(
                "it was asked for, so no other is given; find the host by its address, or ask for another one",
            )
        } else if is_last {
            Some("so many addresses are in others' hands that no more are tried; do others use this range?")
        } else {
            None
        };
        let (failure, transaction) = match refusal {
            Some(details) => {
                (CniError::new(codes::ADDRESS_CONFLICT, holders).with_details(details), transaction)
            }
            None => match self.lease(source, transaction) {
                Ok(promise) => return Ok(promise),
                Err((failure, None)) => return Err(failure),
                Err((failure, Some(transaction))) => {
                    let details = [failure.details.as_str(), &holders].join("; ");
                    (failure.with_details(details.trim_start_matches("; ")), transaction)
                }
            },
        };
        transaction.commit().map_err(ledger_error)?;
        Err(failure)
    }

    /// Leases what the owner has not yet, and writes the record of it. A lease that fails has changed nothing, and gives the
    /// transaction back.
    fn lease<'t>(
        &self,
        source: &PoolSource<'_>,
        mut transaction: Transaction<'t>,
    ) -> Result<Promise, (CniError, Option<Transaction<'t>>)> {
        let PoolSource { pool, request, dns } = source;
        let network = &self.wish.network.name;
        let leased = match zerobridge_ipam::lease(&mut transaction, network, pool, request) {
            Ok(leased) => leased,
            Err(error) => return Err((error.into(), Some(transaction))),
        };
        let promise = self.complete(Leased { dns: dns.clone(), ..leased }, None);
        let promise = promise.map_err(|failure| (failure, None))?;
        write(transaction, &promise.record).map_err(|error| (ledger_error(error), None))?;
        Ok(promise)
    }

    fn write_answer(
        &self,
        ledger: &mut Ledger,
        delegate: &Delegate,
        answer: AddResult,
    ) -> Result<Promise, CniError> {
        let delegation = delegate.to_record(Some(answer.clone()));
        let leased = Leased { ips: answer.ips, routes: answer.routes, dns: answer.dns };
        self.write(ledger, leased, Some(&delegation))
    }

    fn write(
        &self,
        ledger: &mut Ledger,
        leased: Leased,
        delegation: Option<&Delegation>,
    ) -> Result<Promise, CniError> {
        let promise = self.complete(leased, delegation)?;
        let transaction = ledger.begin().map_err(ledger_error)?;
        write(transaction, &promise.record).map_err(ledger_error)?;
        Ok(promise)
    }

    /// Gives back what the attempt has taken. Returns the failure to report: the first one, with what else went wrong.
    pub(crate) fn take_back(&self, ledger: &mut Ledger, record: &Attachment, failure: CniError) -> CniError {
        let delegates = match &self.source {
            Source::Other(delegate) => std::slice::from_ref(delegate),
            Source::Nobody | Source::Pool(_) => &[],
        };
        match self.repairer.give_back(ledger, record, self.call.now, delegates).map_err(repair_error) {
            Ok(()) => failure,
            Err(second) => {
                let details = format!("{}; and it could not all be taken back: {second}", failure.details);
                failure.with_details(details)
            }
        }
    }

    fn complete(&self, leased: Leased, delegation: Option<&Delegation>) -> Result<Promise, CniError> {
        let Self { call, wish, original, .. } = *self;
        let Wish { device, network, .. } = wish;
        let routes = leased.routes.iter().map(|route| kernel_route(route, &leased)).collect();
        let addresses = leased.ips.iter().map(|ip| ip.address).collect();
        let wanted = wanted(wish, original, addresses, routes).map_err(attachment_error)?;
        let record = Attachment {
            device,
            owner: call.owner(),
            network: network.name.clone(),
            sandbox: self.sandbox.clone(),
            pod: call.pod(),
            original: record::encode(original)?,
            wanted: record::encode_wanted(&wanted, delegation)?,
            boot_id: call.boot_id.clone(),
            created_at: call.now,
        };
        Ok(Promise { record, wanted, leased, is_unanswered: false })
    }
}

fn write(mut transaction: Transaction<'_>, record: &Attachment) -> Result<(), LedgerError> {
    transaction.remove_attachment(&record.owner)?;
    transaction.insert_attachment(record)?;
    transaction.commit()
}

/// A route of the pool as the kernel takes it: without a next hop, the gateway of its family is meant.
fn kernel_route(route: &zerobridge_proto::cni::Route, leased: &Leased) -> Route {
    let same_family = |ip: &&Ip| ip.address.addr().is_ipv4() == route.dst.addr().is_ipv4();
    Route {
        destination: route.dst,
        gateway: route.gw.or_else(|| leased.ips.iter().find(same_family)?.gateway),
        table: route.table,
        priority: route.priority,
        mtu: route.mtu,
        advmss: route.advmss,
        scope: route.scope,
    }
}

#[cfg(test)]
mod tests;
