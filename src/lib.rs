//! Tributary keeps a customer-success store in step with its CRMs in real time.
