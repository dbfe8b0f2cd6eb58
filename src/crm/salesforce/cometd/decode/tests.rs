//! Events as Salesforce sends them, decoded.
