//! What is declared before clients begin: the queues, and the exchange `fan` with its bindings.
use super::host::SimHost;
use super::session::DURABLE;
use crate::names::{FAN, name};
use crate::requests::declaration;
use leveret_model::exchange::ExchangeType;
use leveret_model::refusal::Refusal;
use leveret_model::table::FieldTable;
use leveret_node::catalog::{BindingDeclare, Destination, ExchangeDeclare};
use leveret_node::{Broker, Caller};
use parking_lot::Mutex;
use std::sync::Arc;

/// The declarations that are under way.
pub(crate) struct SetUp(Arc<Mutex<Option<Result<(), String>>>>);

impl SetUp {
    /// Begins to declare on a node.
    pub(crate) fn begin(host: &SimHost) -> Self {
        let outcome = Arc::<Mutex<Option<Result<(), String>>>>::default();
        if let Some(process) = &host.process {
            let (broker, told) = (process.broker.clone(), outcome.clone());
            process.spawn(async move {
                let declared = declare_all(&broker).await.map_err(|refusal| refusal.text);
                *told.lock() = Some(declared);
            });
        }
        Self(outcome)
    }

    /// Returns what is missing; `None` if all is declared.
    pub(crate) fn missing(&self) -> Option<String> {
        match &*self.0.lock() {
            None => Some("there is no answer".to_owned()),
            Some(Err(refused)) => Some(refused.clone()),
            Some(Ok(())) => None,
        }
    }
}

async fn declare_all(broker: &Broker) -> Result<(), Refusal> {
    let (caller, none) = (Caller::system(), FieldTable::default());
    for at in 0..DURABLE as usize {
        broker.declare_queue(&caller, "/", &name(at), declaration(at)).await?;
    }
    let (kind, arguments) = (ExchangeType::Fanout, FieldTable::default());
    let fan = ExchangeDeclare { kind, durable: true, auto_delete: false, internal: false, arguments };
    broker.declare_exchange(&caller, "/", "fan", fan).await?;
    for at in FAN {
        let to = Destination::Queue(name(at));
        broker.bind(&caller, "/", BindingDeclare::new("fan", &to, b"", &none)).await?;
    }
    Ok(())
}
