//! The auto-delete exchange `brief`: clients declare it, bind it to a durable or a transient queue, and unbind it, which
//! deletes it.
use crate::life::Life;
use crate::names::{Brief, name};
use leveret_model::exchange::ExchangeType;
use leveret_model::refusal::Refusal;
use leveret_model::table::FieldTable;
use leveret_node::Caller;
use leveret_node::catalog::{BindingDeclare, Destination, ExchangeDeclare};

impl Life<'_> {
    /// Declares and binds the exchange if it does not exist; otherwise unbinds it, which deletes it, or deletes it.
    pub(crate) async fn toggle_brief(&mut self) {
        let at = if self.world.random.once_in(2) { DURABLE_SLOT } else { TRANSIENT_SLOT };
        let before = self.clients.with(|state| std::mem::replace(&mut state.checker.brief, Brief::Unknown));
        self.trace(format!("exchange '{EXCHANGE}' was {before:?}"));
        let after = match before {
            Brief::Absent => self.make(at).await.map(|()| Brief::BoundTo(at)),
            Brief::BoundTo(at) => self.unbind(at).await.map(|()| Brief::Absent),
            Brief::Unknown => {
                self.broker.delete_exchange(&Caller::system(), "/", EXCHANGE, false).await.map(|_| Brief::Absent)
            }
        };
        match after {
            Ok(after) => {
                self.trace(format!("exchange '{EXCHANGE}' is {after:?}"));
                self.clients.with(|state| state.checker.brief = after);
                self.check_brief();
            }
            Err(refusal) => self.broken(format!("exchange '{EXCHANGE}' was {before:?}: {}", refusal.text)),
        }
    }

    async fn make(&self, at: usize) -> Result<(), Refusal> {
        let (kind, arguments) = (ExchangeType::Fanout, FieldTable::default());
        let declare = ExchangeDeclare { kind, durable: true, auto_delete: true, internal: false, arguments };
        self.broker.declare_exchange(&Caller::system(), "/", EXCHANGE, declare).await?;
        let none = FieldTable::default();
        self.broker
            .bind(&Caller::system(), "/", BindingDeclare::new(EXCHANGE, &Destination::Queue(name(at)), b"", &none))
            .await
            .map(drop)
    }

    async fn unbind(&self, at: usize) -> Result<(), Refusal> {
        let none = FieldTable::default();
        self.broker
            .unbind(&Caller::system(), "/", BindingDeclare::new(EXCHANGE, &Destination::Queue(name(at)), b"", &none))
            .await
            .map(drop)
    }

    /// Checks the exchange after a start. If it was bound to the transient queue, which is gone, its state is unknown.
    pub(crate) fn check_brief_after_start(&self) {
        self.clients.with(|state| {
            if state.checker.brief == Brief::BoundTo(TRANSIENT_SLOT) {
                state.checker.brief = Brief::Unknown;
            }
        });
        self.check_brief();
    }

    /// Checks that the exchange exists if, and only if, it should according to the answers that clients got.
    pub(crate) fn check_brief(&self) {
        let exists = self.broker.catalog().exchange("/", EXCHANGE).is_ok();
        let known = self.clients.with(|state| state.checker.brief);
        let wrong = match known {
            Brief::Absent => exists,
            Brief::BoundTo(_) => !exists,
            Brief::Unknown => false,
        };
        if wrong {
            self.broken(format!("exchange '{EXCHANGE}' exists: {exists}; clients were told {known:?}"));
        }
    }
}

const EXCHANGE: &str = "brief";
/// The durable queue that the exchange may be bound to.
const DURABLE_SLOT: usize = 2;
/// The transient queue that the exchange may be bound to.
const TRANSIENT_SLOT: usize = 5;
