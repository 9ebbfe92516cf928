export function DashboardsScreen() { return null; }
