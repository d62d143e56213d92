"""How much the auxiliary terms weigh: constant, scheduled, or learned by implicit differentiation."""
