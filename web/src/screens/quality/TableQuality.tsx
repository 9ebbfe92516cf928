export function TableQuality() { return null; }
