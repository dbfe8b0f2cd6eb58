//! OData as Dataverse reads it: options, filters, ordering, expansion.

pub(crate) mod bind;
pub(crate) mod evaluate;
pub(crate) mod functions;
pub(crate) mod options;
pub(crate) mod parser;
pub(crate) mod percent;
