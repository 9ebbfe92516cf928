export function TablesScreen() { return null; }
