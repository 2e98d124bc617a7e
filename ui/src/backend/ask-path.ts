// A browser has no file chooser that tells a path of the host: the page asks for one in words. `AskPath.svelte` shows it.
interface Question {
  title: string;
  name: string;
  answer: (path: string | null) => void;
}

let show: ((question: Question) => void) | null = null;

export function onAskForPath(shower: (question: Question) => void): void {
  show = shower;
}

export function askForPath(title: string, name: string): Promise<string | null> {
  return new Promise((answer) => (show ? show({ title, name, answer }) : answer(null)));
}

export type { Question };
